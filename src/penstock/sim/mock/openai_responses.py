"""OpenAI's POST /v1/responses."""

from collections.abc import Mapping
from typing import Any

from penstock.sim.mock import reading
from penstock.sim.mock.answers import sse_named
from penstock.sim.mock.call import CREATED_UNIX_S, BodyError, MockCall, MockEndpoint, MockReply
from penstock.sim.mock.logprobs import response_alternatives_of, response_logprobs


class Responses(MockEndpoint):
    """Text, tools and images; whole or streamed."""

    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError."""
        response_alternatives_of(body)
        return MockCall(
            model=reading.text_of(body, "model"),
            prompt_tokens=self.prompt_tokens(body),
            stream=reading.flag_of(body, "stream"),
            max_tokens=reading.count_of(body, "max_output_tokens"),
            tool=_tool_to_call(body, _items(body)),
            schema=_schema(body),
            body=body,
        )

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Return how many tokens the input has, or raise BodyError."""
        items = _items(body)
        prompt = reading.content_tokens(body.get("instructions"), "instructions")
        for number, item in enumerate(items):
            where = f"input[{number}]"
            if isinstance(item, str):
                prompt += reading.content_tokens(item, where)
            elif isinstance(item, Mapping):
                prompt += reading.content_tokens(item.get("content"), f"{where}.content")
            else:
                raise BodyError(f"'{where}' must be an object", where)
        return prompt

    def whole(self, call: MockCall, reply: MockReply) -> dict[str, Any]:
        """Return the response object."""
        return _response(call, reply, "incomplete" if reply.cut else "completed")

    def opening(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return response.created to response.content_part.added."""
        begun = _response(call, reply, "in_progress")
        item = _item(call, reply, "in_progress", "")
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
        ]
        if call.tool is None:
            at = _place(reply)
            events.append({"type": "response.content_part.added", **at, "part": _part("", [])})
        return [sse_named(e | {"sequence_number": n}) for n, e in enumerate(events)]

    def delta(self, call: MockCall, reply: MockReply, choice: int, pieces: list[str]) -> bytes:
        """Return the event that carries these tokens of a text or of a tool's arguments."""
        # The numbers only have to grow; leaving room keeps this function free of state.
        return sse_named(_delta(call, reply, pieces) | {"sequence_number": 4})

    def closing(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return the events from the text's end to response.completed."""
        state = "incomplete" if reply.cut else "completed"
        item = _item(call, reply, state, reply.text)
        events: list[dict[str, Any]] = []
        if call.tool is None:
            at = _place(reply)
            told = response_logprobs(call, reply.pieces)
            text = {"text": reply.text, "logprobs": told}
            events.append({"type": "response.output_text.done", **at, **text})
            part = _part(reply.text, told)
            events.append({"type": "response.content_part.done", **at, "part": part})
        else:
            at = {"item_id": _item_id(call, reply), "output_index": 0}
            done = {"name": call.tool[0], "arguments": reply.text}
            events.append({"type": "response.function_call_arguments.done", **at, **done})
        events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
        events.append({"type": f"response.{state}", "response": _response(call, reply, state)})
        first = 5 + reply.tokens
        return [sse_named(e | {"sequence_number": first + n}) for n, e in enumerate(events)]

    def kept_input(self, call: MockCall) -> list[Any] | None:
        """Return the input's items, unless the caller wants nothing stored."""
        if call.body.get("store", True) is False:
            return None
        given = call.body["input"]
        text = {"type": "message", "role": "user", "content": given}
        return [text] if isinstance(given, str) else list(given)


def _items(body: Mapping[str, Any]) -> list[Any]:
    given = body.get("input")
    items: Any = [given] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        raise BodyError("'input' must be a string or a non-empty array", "input")
    return items


def _delta(call: MockCall, reply: MockReply, pieces: list[str]) -> dict[str, Any]:
    text = "".join(pieces)
    if call.tool is not None:
        at = {"item_id": _item_id(call, reply), "output_index": 0}
        return {"type": "response.function_call_arguments.delta", **at, "delta": text}
    delta = {"delta": text, "logprobs": response_logprobs(call, pieces)}
    return {"type": "response.output_text.delta", **_place(reply), **delta}


def _response(call: MockCall, reply: MockReply, state: str) -> dict[str, Any]:
    done = state != "in_progress"
    prompt, cached, output = reply.counts(call)
    counts = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + output,
    }
    return {
        "id": f"resp_mock{reply.id}",
        "object": "response",
        "created_at": CREATED_UNIX_S,
        "status": state,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if state == "incomplete" else None,
        "instructions": call.body.get("instructions"),
        "max_output_tokens": call.max_tokens,
        "model": call.model,
        "output": [_item(call, reply, state, reply.text)] if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": call.body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "temperature": 1.0,
        "text": call.body.get("text") or {"format": {"type": "text"}},
        "tool_choice": call.body.get("tool_choice", "auto"),
        "tools": call.body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": counts if done else None,
        "metadata": {},
    }


def _item_id(call: MockCall, reply: MockReply) -> str:
    return f"{'msg' if call.tool is None else 'fc'}_mock{reply.id}"


def _item(call: MockCall, reply: MockReply, state: str, text: str) -> dict[str, Any]:
    base = {"id": _item_id(call, reply), "status": state}
    if call.tool is None:
        done = state != "in_progress"
        content = [_part(text, response_logprobs(call, reply.pieces))] if done else []
        return base | {"type": "message", "role": "assistant", "content": content}
    called = {"call_id": f"call_mock{reply.id}", "name": call.tool[0], "arguments": text}
    return base | {"type": "function_call"} | called


def _part(text: str, told: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": told}


def _place(reply: MockReply) -> dict[str, Any]:
    return {"item_id": f"msg_mock{reply.id}", "output_index": 0, "content_index": 0}


def _tool_to_call(
    body: Mapping[str, Any], items: list[Any]
) -> tuple[str, Mapping[str, Any]] | None:
    """Return the tool to call; none after a tool's result."""
    last = items[-1]
    if isinstance(last, Mapping) and last.get("type") == "function_call_output":
        return None
    functions = [t for t in reading.tools_of(body) if t.get("type") == "function"]
    missing = "Missing required parameter: 'tools[0].name'"
    return reading.tool_to_call(body, functions, schema="parameters", missing=missing)


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, Mapping) else None
    if isinstance(wanted, Mapping) and wanted.get("type") == "json_schema":
        schema = wanted.get("schema")
        return schema if isinstance(schema, Mapping) else {"type": "object"}
    return None
