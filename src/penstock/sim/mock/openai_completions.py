"""OpenAI's POST /v1/completions, the old one."""

from collections.abc import Mapping
from typing import Any

from penstock.sim.mock import reading
from penstock.sim.mock.answers import SSE_DONE, sse_data
from penstock.sim.mock.call import CREATED_UNIX_S, BodyError, MockCall, MockEndpoint, MockReply
from penstock.sim.mock.logprobs import legacy_alternatives_of, legacy_logprobs
from penstock.sim.mock.openai_chat import usage
from penstock.sim.mock.words import count_tokens


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
        return _head(call, reply) | {"choices": choices, "usage": usage(call, reply)}

    def opening(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return nothing: this stream has no opening."""
        return []

    def delta(self, call: MockCall, reply: MockReply, choice: int, pieces: list[str]) -> bytes:
        """Return the chunk that carries these tokens."""
        one = _choice(choice, "".join(pieces), None, legacy_logprobs(call, pieces))
        return sse_data(_head(call, reply) | {"choices": [one]})

    def closing(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return each choice's end, the usage if asked for, and [DONE]."""
        reason = "length" if reply.cut else "stop"
        head = _head(call, reply)
        events = [
            sse_data(head | {"choices": [_choice(index, "", reason)]})
            for index in range(call.replies)
        ]
        if call.include_usage:
            events.append(sse_data(head | {"choices": [], "usage": usage(call, reply)}))
        return [*events, SSE_DONE]


def _head(call: MockCall, reply: MockReply) -> dict[str, Any]:
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
