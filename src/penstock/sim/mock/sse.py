"""Server-sent events, as the vendors write them."""

from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"


def data(payload: dict[str, Any]) -> bytes:
    """Return an event with data only (OpenAI's chat and completions)."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def named(payload: dict[str, Any]) -> bytes:
    """Return an event named after its payload's type (OpenAI's responses, Anthropic)."""
    name: str = payload["type"]
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"
