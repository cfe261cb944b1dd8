"""What a reply in another API's shape holds: an error, or something that somebody has paid for.

Gateways translate between APIs, and some hand on what they were given. Whatever holds a text or a
vector is the provider's answer: it is not asked for again, and its caller gets it as it is.
"""

import re
from collections.abc import Mapping
from typing import Any

from penstock.wire.jsonio import NO_CODES
from penstock.wire.words import message_of

_HOLDERS = (
    "answer", "artifacts", "audio", "candidates", "choices", "completion", "content", "data",
    "delta", "embedding", "embeddings", "generated_text", "generations", "image", "images",
    "message", "output", "outputs", "predictions", "response", "result", "results", "segments",
    "text", "transcript",
)  # fmt: skip
"""Where APIs put what a model wrote: Gemini, Vertex, Bedrock, Ollama, Cohere, TGI, llama.cpp,
Workers AI, DashScope, ERNIE, Replicate, Dify, Deepgram, Stability."""
_OF_OBJECTS = ("choices", "data", "message")
_ABOUT = frozenset(
    ("code", "content_filter_results", "created_at", "finish_reason", "id", "model", "name",
     "object", "reason", "role", "stop_reason", "status", "type")
)  # fmt: skip
"""Texts that say something about a reply, and are none."""
_TROUBLE = re.compile(r"(?:^|_)err(?:or)?s?(?:$|_)|error\Z|fault|exception", re.IGNORECASE)
_FAILED = ("error", "fail", "failed", "failure")
_LEVELS, _EACH = 6, 64


def holds_content(reply: Mapping[str, Any]) -> bool:
    """Return whether an object without an error of its own API holds what a model made."""
    if complains(reply) or any(
        isinstance(each, dict) and complains(each) for each in reply.values()
    ):
        return False
    return any(
        is_content(held)
        for name in _HOLDERS
        if (held := reply.get(name)) and not (name in _OF_OBJECTS and isinstance(held, str))
    )


def complains(reply: Mapping[str, Any]) -> bool:
    """Return whether an object says by itself that something went wrong."""
    status = reply.get("status")
    well = "code" in reply and reply["code"] in NO_CODES
    return (
        (not well and bool(message_of(reply)))
        or reply.get("success") is False
        or (isinstance(status, str) and status.lower() in _FAILED)
        or any(value and _TROUBLE.search(name) for name, value in reply.items())
    )


def is_content(value: object, levels: int = _LEVELS) -> bool:
    """Return whether a text or a vector stands somewhere within a value, so many levels deep."""
    if isinstance(value, str):
        return value.strip() != ""
    if not levels:
        return False
    if isinstance(value, list):
        if len(value) > 1 and all(isinstance(each, int | float) for each in value[:_EACH]):
            return True
        return any(is_content(each, levels - 1) for each in value[:_EACH])
    if isinstance(value, dict):
        return any(
            is_content(each, levels - 1) for name, each in value.items() if name not in _ABOUT
        )
    return False
