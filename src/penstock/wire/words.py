"""A provider's own words about a refusal: what they mean, and what of them callers are told."""

import re
from collections.abc import Mapping
from typing import Any

from penstock.wire import jsonio

MOST_WORDS_CHARS = 300
"""A refusal's sentence, with its link to the billing page, has 120 to 250."""
_READ_BYTES = 1 << 14
_NAMES = ("message", "msg", "detail", "status_msg")

_KEY = re.compile(
    r"\b(?:sk|pk|rk|gsk|csk|xai|nvapi|hf|r8|fw|pplx|tgp)[-_][\w*.-]{4,}"
    r"|\bAIza[\w*-]{8,}"
    r"|\bBearer\s+\S+"
    r"|[\w+/=*-]{32,}",
    re.IGNORECASE,
)
"""Keys as providers make them, masked ones too, and whatever is as long as one."""

_TOO_LONG_STATUSES = frozenset((400, 413, 422))
_TOO_LONG = re.compile(
    rb"context_length_exceeded|exceed_context_size|maximum context length|prompt is too long"
    rb"|input token count[^\"]{0,40} exceeds|too large for model",
    re.IGNORECASE,
)
"""OpenAI; llama.cpp; vLLM, SGLang and OpenRouter; Anthropic; Gemini; Mistral."""


def words_of_refusal(body: bytes) -> str:
    """Return the sentence of an error's body; empty if it has none that can be read.

    Keys are replaced, line breaks and control characters are spaces, and no more than
    `MOST_WORDS_CHARS` of it are kept.
    """
    return words_of(jsonio.loads_object(body[:_READ_BYTES]))


def words_of(parsed: Mapping[str, Any] | None) -> str:
    """Return the same of an error's object."""
    return _fit(message_of(parsed))


def words_of_no_reply(body: bytes) -> str:
    """Return what an answer says that is no reply, in the same way: of JSON its message."""
    begun = body[:_READ_BYTES]
    if begun.lstrip()[:1] in (b"{", b"["):
        return words_of_refusal(body)
    return _fit(begun.decode(errors="replace"))


def _fit(said: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in said)
    text = _KEY.sub("(hidden)", " ".join(shown.split()))
    return text if len(text) <= MOST_WORDS_CHARS else text[: MOST_WORDS_CHARS - 3] + "..."


def message_of(parsed: Mapping[str, Any] | None) -> str:
    """Return the message of an error's object; empty if there is none."""
    error = (parsed or {}).get("error", parsed)
    if not isinstance(error, dict):
        return error if isinstance(error, str) else ""
    inner = [each[0] if isinstance(each, list) and each else each for each in error.values()]
    for holder in (error, *inner):  # `errors` of Cloudflare, `base_resp` of MiniMax
        for name in _NAMES if isinstance(holder, dict) else ():
            if isinstance(holder.get(name), str) and holder[name]:
                return str(holder[name])
    return ""


def is_too_long(status: int, body: bytes) -> bool:
    """Return whether an error says that prompt and reply do not fit the model's context.

    Args:
        status: HTTP status.
        body: the error's, without its content encoding.

    """
    return status in _TOO_LONG_STATUSES and _TOO_LONG.search(body) is not None
