"""OpenAI's POST /v1/chat/completions, and the old POST /v1/completions."""

from collections.abc import Mapping
from typing import Any

from penstock.sim.mock import reading
from penstock.sim.mock.answers import SSE_DONE, sse_data
from penstock.sim.mock.call import CREATED_UNIX_S, BodyError, MockCall, MockEndpoint, MockReply
from penstock.sim.mock.logprobs import (
    alternatives_of,
    legacy_alternatives_of,
    legacy_logprobs,
    logprobs,
)
from penstock.sim.mock.words import count_tokens


class ChatCompletions(MockEndpoint):
    """Text, tools, images, structured output, several choices; whole or streamed."""

    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError."""
        messages = reading.messages_of(body)
        prompt = sum(
            reading.content_tokens(m.get("content"), f"messages[{n}].content")
            for n, m in enumerate(messages)
        )
        options = body.get("stream_options")
        if options is not None and not isinstance(options, Mapping):
            raise BodyError(
                "Invalid type for 'stream_options': expected an object", "stream_options"
            )
        alternatives_of(body)
        return MockCall(
            model=reading.text_of(body, "model"),
            prompt_tokens=prompt,
            stream=reading.flag_of(body, "stream"),
            include_usage=bool(options and options.get("include_usage")),
            max_tokens=reading.count_of(body, "max_completion_tokens", "max_tokens"),
            replies=reading.count_of(body, "n") or 1,
            tool=_tool_to_call(body, messages),
            schema=_schema(body),
            body=body,
        )

    def whole(self, call: MockCall, reply: MockReply) -> dict[str, Any]:
        """Return the chat.completion object."""
        choices = [
            {
                "index": index,
                "message": _message(call, reply),
                "logprobs": logprobs(call, reply.pieces),
                "finish_reason": _finish_reason(call, reply),
            }
            for index in range(call.replies)
        ]
        return _head(call, reply, "chat.completion") | {
            "choices": choices,
            "usage": usage(call, reply),
        }

    def opening(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return the chunks that give each choice its role (and its tool)."""
        delta: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
        if call.tool is not None:
            named = {"name": call.tool[0], "arguments": ""}
            head = {"index": 0, "id": _tool_id(reply), "type": "function", "function": named}
            delta = {"role": "assistant", "content": None, "tool_calls": [head]}
        return [_chunk(call, reply, index, delta) for index in range(call.replies)]

    def delta(self, call: MockCall, reply: MockReply, choice: int, pieces: list[str]) -> bytes:
        """Return the chunk that carries these tokens of a text or of a tool's arguments."""
        text = "".join(pieces)
        if call.tool is not None:
            piece = {"index": 0, "function": {"arguments": text}}
            return _chunk(call, reply, choice, {"tool_calls": [piece]})
        return _chunk(call, reply, choice, {"content": text}, pieces=pieces)

    def closing(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return each choice's end, the usage if asked for, and [DONE]."""
        reason = _finish_reason(call, reply)
        events = [_chunk(call, reply, i, {}, finish_reason=reason) for i in range(call.replies)]
        if call.include_usage:
            last = _head(call, reply, "chat.completion.chunk")
            events.append(sse_data(last | {"choices": [], "usage": usage(call, reply)}))
        return [*events, SSE_DONE]

    def kept_input(self, call: MockCall) -> list[Any] | None:
        """Return the messages, if the caller wants the reply stored."""
        return list(call.body["messages"]) if call.body.get("store") else None


def usage(call: MockCall, reply: MockReply) -> dict[str, Any]:
    """Return OpenAI's usage object for a call and its reply."""
    prompt, cached, completion = reply.counts(call)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _head(call: MockCall, reply: MockReply, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-mock{reply.id}",
        "object": kind,
        "created": CREATED_UNIX_S,
        "model": call.model,
        "system_fingerprint": "fp_mock",
    }


def _chunk(
    call: MockCall,
    reply: MockReply,
    index: int,
    delta: dict[str, Any],
    *,
    pieces: list[str] | None = None,
    finish_reason: str | None = None,
) -> bytes:
    probabilities = None if pieces is None else logprobs(call, pieces)
    choice = {
        "index": index,
        "delta": delta,
        "logprobs": probabilities,
        "finish_reason": finish_reason,
    }
    chunk = _head(call, reply, "chat.completion.chunk") | {"choices": [choice]}
    if call.include_usage:
        chunk["usage"] = None
    return sse_data(chunk)


def _message(call: MockCall, reply: MockReply) -> dict[str, Any]:
    if call.tool is None:
        return {"role": "assistant", "content": reply.text, "refusal": None}
    function = {"name": call.tool[0], "arguments": reply.text}
    called = {"id": _tool_id(reply), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [called]}


def _finish_reason(call: MockCall, reply: MockReply) -> str:
    if call.tool is not None:
        return "tool_calls"
    return "length" if reply.cut else "stop"


def _tool_id(reply: MockReply) -> str:
    return f"call_mock{reply.id}"


def _tool_to_call(
    body: Mapping[str, Any], messages: list[Mapping[str, Any]]
) -> tuple[str, Mapping[str, Any]] | None:
    """Return the tool to call; none after a tool's result."""
    functions = [tool.get("function") for tool in reading.tools_of(body)]
    if messages[-1]["role"] == "tool":
        return None
    missing = "Missing required parameter: 'tools[0].function.name'"
    return reading.tool_to_call(body, functions, schema="parameters", missing=missing)


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = body.get("response_format")
    if wanted is None:
        return None
    if not isinstance(wanted, Mapping):
        raise BodyError("Invalid type for 'response_format': expected an object", "response_format")
    if wanted.get("type") == "json_schema" and isinstance(wanted.get("json_schema"), Mapping):
        schema = wanted["json_schema"].get("schema")
        return schema if isinstance(schema, Mapping) else {"type": "object"}
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"text": {"type": "string"}}}
    return None


class Completions(MockEndpoint):
    """A prompt in, text out; whole or streamed."""

    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError; each prompt of a list gets `n` replies."""
        prompt = body.get("prompt", "")
        prompts = prompt if isinstance(prompt, list) and prompt else [prompt]
        if all(isinstance(p, str) for p in prompts):
            tokens = sum(count_tokens(p) for p in prompts)
        elif isinstance(prompt, list) and all(isinstance(p, int) for p in prompts):
            tokens, prompts = len(prompts), [""]
        else:
            raise BodyError("'prompt' must be a string, or an array of strings or tokens", "prompt")
        legacy_alternatives_of(body)
        options = body.get("stream_options")
        return MockCall(
            model=reading.text_of(body, "model"),
            prompt_tokens=tokens,
            stream=reading.flag_of(body, "stream"),
            include_usage=isinstance(options, Mapping) and bool(options.get("include_usage")),
            # The API's own default, which surprises everyone once.
            max_tokens=reading.count_of(body, "max_tokens") or 16,
            replies=(reading.count_of(body, "n") or 1) * len(prompts),
            body=body,
        )

    def whole(self, call: MockCall, reply: MockReply) -> dict[str, Any]:
        """Return the text_completion object."""
        reason = "length" if reply.cut else "stop"
        told = legacy_logprobs(call, reply.pieces)
        choices = [_choice(index, reply.text, reason, told) for index in range(call.replies)]
        return _completion_head(call, reply) | {"choices": choices, "usage": usage(call, reply)}

    def opening(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return nothing: this stream has no opening."""
        return []

    def delta(self, call: MockCall, reply: MockReply, choice: int, pieces: list[str]) -> bytes:
        """Return the chunk that carries these tokens."""
        one = _choice(choice, "".join(pieces), None, legacy_logprobs(call, pieces))
        return sse_data(_completion_head(call, reply) | {"choices": [one]})

    def closing(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return each choice's end, the usage if asked for, and [DONE]."""
        reason = "length" if reply.cut else "stop"
        head = _completion_head(call, reply)
        events = [
            sse_data(head | {"choices": [_choice(index, "", reason)]})
            for index in range(call.replies)
        ]
        if call.include_usage:
            events.append(sse_data(head | {"choices": [], "usage": usage(call, reply)}))
        return [*events, SSE_DONE]


def _completion_head(call: MockCall, reply: MockReply) -> dict[str, Any]:
    return {
        "id": f"cmpl-mock{reply.id}",
        "object": "text_completion",
        "created": CREATED_UNIX_S,
        "model": call.model,
        "system_fingerprint": "fp_mock",
    }


def _choice(
    index: int, text: str, reason: str | None, told: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": told, "finish_reason": reason}
