"""Whether an upstream refuses a request because it is too long for the model."""

import re

_STATUSES = frozenset((400, 413, 422))
_WORDS = re.compile(
    rb"context_length_exceeded|exceed_context_size|maximum context length|prompt is too long"
    rb"|input token count[^\"]{0,40} exceeds|too large for model",
    re.IGNORECASE,
)
"""OpenAI; llama.cpp; vLLM, SGLang and OpenRouter; Anthropic; Gemini; Mistral."""


def is_too_long(status: int, body: bytes) -> bool:
    """Return whether an error says that prompt and reply do not fit the model's context.

    Args:
        status: HTTP status.
        body: the error's, without its content encoding.

    """
    return status in _STATUSES and _WORDS.search(body) is not None
