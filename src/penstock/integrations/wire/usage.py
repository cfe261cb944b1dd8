"""Token counts out of replies. Unknown is None, never 0."""

from collections.abc import Mapping
from typing import Any

from penstock.integrations.wire.endpoint import Kind
from penstock.runtime import jsonio
from penstock.runtime.slot import Usage

UNKNOWN = Usage(source="unknown")
_PROMPT_NAMES = ("prompt_tokens", "input_tokens")
_OUTPUT_NAMES = ("completion_tokens", "output_tokens")
_CACHE_NAMES = ("cache_creation_input_tokens", "cache_read_input_tokens")


def usage_of_reply(kind: Kind, body: bytes) -> Usage:
    """Return the usage that a complete, non-streamed reply reports."""
    reply = jsonio.loads_object(body)
    return UNKNOWN if reply is None else usage_of_object(kind, reply)


def usage_of_object(kind: Kind, reply: Mapping[str, Any]) -> Usage:
    """Return the usage in a parsed reply, or in the part of a stream that carries it."""
    usage = reply.get("usage")
    if not isinstance(usage, dict):  # as JSON has it; Mapping's check costs four times as much
        return UNKNOWN
    prompt = _count(usage, _PROMPT_NAMES)
    output = _count(usage, _OUTPUT_NAMES)
    if kind is Kind.EMBEDDINGS and output is None and prompt is not None:
        output = 0  # embeddings write nothing: here 0 is a fact
    if kind is Kind.MESSAGES and prompt is not None:
        # Anthropic counts cached input apart; the input limit and the prompt's size are the sum.
        prompt += sum(_count(usage, (name,)) or 0 for name in _CACHE_NAMES)
    if prompt is None and output is None:
        return UNKNOWN
    return Usage(output, prompt, "reported")


def _count(usage: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None
