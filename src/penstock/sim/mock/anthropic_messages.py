"""Anthropic's POST /v1/messages."""

from collections.abc import Mapping
from typing import Any

import orjson

from penstock.sim.mock import reading
from penstock.sim.mock.answers import sse_named
from penstock.sim.mock.call import BodyError, MockCall, MockEndpoint, MockReply


class Messages(MockEndpoint):
    """Text, tools, images, structured output and thinking; whole or streamed."""

    vendor = "anthropic"

    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError."""
        messages = reading.messages_of(body)
        max_tokens = reading.count_of(body, "max_tokens", least=0)  # 0 fills the prompt cache alone
        if max_tokens is None:
            raise BodyError("max_tokens: Field required", "max_tokens")
        return MockCall(
            model=reading.text_of(body, "model"),
            prompt_tokens=self.prompt_tokens(body),
            stream=reading.flag_of(body, "stream"),
            max_tokens=max_tokens,
            tool=_tool_to_call(body, messages),
            schema=_schema(body),
            thinks=_thinks(body, max_tokens),
            body=body,
        )

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Return how many tokens the prompt has, or raise BodyError."""
        return reading.content_tokens(body.get("system"), "system") + sum(
            reading.content_tokens(m.get("content"), f"messages[{n}].content")
            for n, m in enumerate(reading.messages_of(body))
        )

    def whole(self, call: MockCall, reply: MockReply) -> dict[str, Any]:
        """Return the message object."""
        block = _block(call, reply)
        if call.tool is None:
            block["text"] = reply.text
        else:
            block["input"] = orjson.loads(reply.text) if reply.text else {}
        return _message(call, reply) | {
            "content": [*_thinking(reply), block] if call.max_tokens else [],
            "stop_reason": _stop_reason(call, reply),
            "usage": _usage(call, reply),
        }

    def opening(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return message_start, the thinking, content_block_start and a ping."""
        at = {"index": _index(reply)}
        block = {"type": "content_block_start", **at, "content_block": _block(call, reply)}
        return [
            sse_named({"type": "message_start", "message": _message(call, reply)}),
            *_thinking_events(reply),
            sse_named(block),
            sse_named({"type": "ping"}),
        ]

    def delta(self, call: MockCall, reply: MockReply, choice: int, pieces: list[str]) -> bytes:
        """Return the content_block_delta that carries these tokens."""
        text = "".join(pieces)
        delta = {"type": "text_delta", "text": text}
        if call.tool is not None:
            delta = {"type": "input_json_delta", "partial_json": text}
        return _block_delta(_index(reply), delta)

    def closing(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return content_block_stop, message_delta with the usage, and message_stop."""
        delta = {"stop_reason": _stop_reason(call, reply), "stop_sequence": None}
        counts = _usage(call, reply)
        return [
            sse_named({"type": "content_block_stop", "index": _index(reply)}),
            sse_named({"type": "message_delta", "delta": delta, "usage": counts}),
            sse_named({"type": "message_stop"}),
        ]


def _index(reply: MockReply) -> int:
    """Return the place of the block that follows the thinking, if there is any."""
    return 1 if reply.thinking else 0


def _thinking(reply: MockReply) -> list[dict[str, Any]]:
    if not reply.thinking:
        return []
    return [{"type": "thinking", "thinking": reply.thinking, "signature": f"sig_mock{reply.id}"}]


def _thinking_events(reply: MockReply) -> list[bytes]:
    """Return the events of a whole thinking block: it is there with the first token."""
    events: list[bytes] = []
    for block in _thinking(reply):
        empty = {**block, "thinking": "", "signature": ""}
        part = {"type": "thinking_delta", "thinking": block["thinking"]}
        signed = {"type": "signature_delta", "signature": block["signature"]}
        events += [
            sse_named({"type": "content_block_start", "index": 0, "content_block": empty}),
            _block_delta(0, part),
            _block_delta(0, signed),
            sse_named({"type": "content_block_stop", "index": 0}),
        ]
    return events


def _block_delta(index: int, delta: dict[str, Any]) -> bytes:
    return sse_named({"type": "content_block_delta", "index": index, "delta": delta})


def _message(call: MockCall, reply: MockReply) -> dict[str, Any]:
    return {
        "id": f"msg_mock{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(call, reply) | {"output_tokens": 1},
    }


def _block(call: MockCall, reply: MockReply) -> dict[str, Any]:
    if call.tool is None:
        return {"type": "text", "text": ""}
    return {
        "type": "tool_use",
        "id": f"toolu_mock{reply.id}",
        "name": call.tool[0],
        "input": {},
    }


def _usage(call: MockCall, reply: MockReply) -> dict[str, Any]:
    prompt, cached, output = reply.counts(call)
    return {
        # Anthropic does not count what came from the cache among the input tokens.
        "input_tokens": max(0, prompt - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
        "service_tier": "standard",
    }


def _stop_reason(call: MockCall, reply: MockReply) -> str:
    if call.tool is not None:
        return "tool_use"
    return "max_tokens" if reply.cut else "end_turn"


def _tool_to_call(
    body: Mapping[str, Any], messages: list[Mapping[str, Any]]
) -> tuple[str, Mapping[str, Any]] | None:
    """Return the tool to call; none after a tool's result."""
    tools = [] if _has_tool_result(messages[-1]) else reading.tools_of(body)
    return reading.tool_to_call(
        body, tools, schema="input_schema", missing="tools.0.name: Field required"
    )


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the JSON schema of structured output, by its name now and by the one of the beta."""
    config = body.get("output_config")
    wanted = config.get("format") if isinstance(config, Mapping) else body.get("output_format")
    if wanted is None:
        return None
    if not isinstance(wanted, Mapping) or not isinstance(wanted.get("schema"), Mapping):
        raise BodyError("output_config.format.schema: Field required", "output_config")
    schema: Mapping[str, Any] = wanted["schema"]
    return schema


def _thinks(body: Mapping[str, Any], max_tokens: int) -> bool:
    wanted = body.get("thinking")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if wanted is None or kind == "disabled":
        return False
    if not isinstance(wanted, Mapping) or kind not in ("enabled", "adaptive"):
        raise BodyError("thinking.type: must be enabled, adaptive or disabled", "thinking")
    budget = wanted.get("budget_tokens")
    if kind == "enabled" and (type(budget) is not int or not 1024 <= budget < max_tokens):
        raise BodyError(
            "thinking.budget_tokens: must be at least 1024 and less than max_tokens", "thinking"
        )
    return True


def _has_tool_result(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(part, Mapping) and part.get("type") == "tool_result" for part in content
    )
