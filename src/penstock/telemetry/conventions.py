"""The names of the GenAI semantic conventions, old and new.

Source:
    github.com/open-telemetry/semantic-conventions 1.41 (the last with GenAI in it) and
    github.com/open-telemetry/semantic-conventions-genai 0.1.0, both of the status "development".
"""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.wire.endpoint import Kind

OPERATION, PROVIDER, MODEL = "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"
ADDRESS, PORT, ERROR = "server.address", "server.port", "error.type"
TOKEN_TYPE = "gen_ai.token.type"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"

_OPERATIONS = {
    "": "chat",
    Kind.CHAT: "chat",
    Kind.MESSAGES: "chat",
    Kind.RESPONSES: "chat",
    Kind.COMPLETIONS: "text_completion",
    Kind.EMBEDDINGS: "embeddings",
}
INFERENCE = frozenset(("chat", "text_completion"))
EMBEDDINGS = "embeddings"

_PROVIDERS = (
    ("openai.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("amazonaws.com", "aws.bedrock"),
    ("cohere.com", "cohere"),
    ("cohere.ai", "cohere"),
    ("deepseek.com", "deepseek"),
    ("groq.com", "groq"),
    ("mistral.ai", "mistral_ai"),
    ("moonshot.ai", "moonshot_ai"),
    ("moonshot.cn", "moonshot_ai"),
    ("perplexity.ai", "perplexity"),
    ("x.ai", "x_ai"),
)

SECONDS = tuple(0.01 * 2**power for power in range(18))
"""The conventions' boundaries, 0.01 s to 81.92 s, and four more, to 22 minutes: calls wait here."""
TOKENS = tuple(4**power for power in range(14))


def operation_of(endpoint: str) -> str:
    """Return what the conventions call an endpoint's operation; its own name if they have none."""
    return _OPERATIONS.get(endpoint, endpoint)


def provider_of(host: str, vendor: str) -> str:
    """Return the provider by its host's name; whose API it speaks if the name says nothing."""
    for ending, provider in _PROVIDERS:
        if host == ending or host.endswith((f".{ending}", f"-{ending}")):
            return provider
    return vendor or "unknown"


@dataclass(frozen=True, slots=True)
class Opted:
    """Which of the names are used."""

    old: bool
    new: bool


def opted(env: Mapping[str, str]) -> Opted:
    """Return what `OTEL_SEMCONV_STABILITY_OPT_IN` asks for: old names alone if nothing."""
    asked = {word.strip() for word in env.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")}
    both = "gen_ai_latest_experimental/dup" in asked
    new = both or "gen_ai_latest_experimental" in asked
    return Opted(old=both or not new, new=new)
