"""Anthropic's POST /v1/messages."""

from collections.abc import Mapping
from typing import Any

import orjson

from penstock.sim.mock import reading, sse
from penstock.sim.mock.call import BodyError, Call, Reply


class Messages:
    """Text, tools and images; whole or streamed."""

    vendor = "anthropic"

    def read(self, body: Mapping[str, Any]) -> Call:
        """Return the call, or raise BodyError."""
        messages = reading.messages_of(body)
        max_tokens = reading.count_of(body, "max_tokens")
        if max_tokens is None:
            raise BodyError("max_tokens: Field required", "max_tokens")
        prompt = reading.content_tokens(body.get("system"), "system") + sum(
            reading.content_tokens(m.get("content"), f"messages[{n}].content")
            for n, m in enumerate(messages)
        )
        return Call(
            model=reading.text_of(body, "model"),
            prompt_tokens=prompt,
            stream=reading.flag_of(body, "stream"),
            max_tokens=max_tokens,
            tool=_tool_to_call(body, messages),
            body=body,
        )

    def whole(self, call: Call, reply: Reply) -> dict[str, Any]:
        """Return the message object."""
        block = _block(call, reply)
        if call.tool is None:
            block["text"] = reply.text
        else:
            block["input"] = orjson.loads(reply.text) if reply.text else {}
        return _message(call, reply) | {
            "content": [block],
            "stop_reason": _stop_reason(call, reply),
            "usage": _usage(call, reply, reply.tokens),
        }

    def opening(self, call: Call, reply: Reply) -> list[bytes]:
        """Return message_start, content_block_start and a ping."""
        start = {"type": "message_start", "message": _message(call, reply)}
        block = {"type": "content_block_start", "index": 0, "content_block": _block(call, reply)}
        return [sse.named(start), sse.named(block), sse.named({"type": "ping"})]

    def delta(self, call: Call, reply: Reply, choice: int, text: str) -> bytes:
        """Return the content_block_delta that carries this piece."""
        delta = {"type": "text_delta", "text": text}
        if call.tool is not None:
            delta = {"type": "input_json_delta", "partial_json": text}
        return sse.named({"type": "content_block_delta", "index": 0, "delta": delta})

    def closing(self, call: Call, reply: Reply) -> list[bytes]:
        """Return content_block_stop, message_delta with the usage, and message_stop."""
        delta = {"stop_reason": _stop_reason(call, reply), "stop_sequence": None}
        counts = _usage(call, reply, reply.tokens)
        return [
            sse.named({"type": "content_block_stop", "index": 0}),
            sse.named({"type": "message_delta", "delta": delta, "usage": counts}),
            sse.named({"type": "message_stop"}),
        ]


def _message(call: Call, reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_mock{reply.number:08d}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(call, reply, 1),
    }


def _block(call: Call, reply: Reply) -> dict[str, Any]:
    if call.tool is None:
        return {"type": "text", "text": ""}
    return {
        "type": "tool_use",
        "id": f"toolu_mock{reply.number:08d}",
        "name": call.tool[0],
        "input": {},
    }


def _usage(call: Call, reply: Reply, output_tokens: int) -> dict[str, Any]:
    return {
        # Anthropic does not count what came from the cache among the input tokens.
        "input_tokens": call.prompt_tokens - reply.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reply.cached_tokens,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _stop_reason(call: Call, reply: Reply) -> str:
    if call.tool is not None:
        return "tool_use"
    return "max_tokens" if reply.cut else "end_turn"


def _tool_to_call(
    body: Mapping[str, Any], messages: list[Mapping[str, Any]]
) -> tuple[str, Mapping[str, Any]] | None:
    """Return the tool to call: the one asked for, else the first; none after a tool's result."""
    tools = reading.tools_of(body)
    wanted = reading.tool_choice_name(body)
    if not tools or wanted is None or _has_tool_result(messages[-1]):
        return None
    for tool in tools:
        if not isinstance(tool.get("name"), str):
            raise BodyError("tools.0.name: Field required", "tools")
        if wanted in ("", tool["name"]):
            return tool["name"], tool.get("input_schema") or {"type": "object"}
    raise BodyError(f"tool_choice names {wanted!r}, which is not among the tools", "tool_choice")


def _has_tool_result(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(part, Mapping) and part.get("type") == "tool_result" for part in content
    )
