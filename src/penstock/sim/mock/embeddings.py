"""OpenAI's POST /v1/embeddings."""

import base64
import struct
from collections.abc import Mapping
from typing import Any

from penstock.sim.chance import unit
from penstock.sim.mock import reading
from penstock.sim.mock.call import BodyError, MockCall, MockEndpoint, MockReply
from penstock.sim.mock.words import count_tokens, seed_of

_USUAL_DIMENSIONS = 64


class Embeddings(MockEndpoint):
    """Vectors that depend on the text alone; never streamed; takes the provider's ttft_s."""

    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError."""
        texts = _inputs(body)
        reading.count_of(body, "dimensions")
        return MockCall(
            model=reading.text_of(body, "model"),
            prompt_tokens=sum(count_tokens(text) for text in texts),
            reply_tokens=0,
            body=body,
        )

    def whole(self, call: MockCall, reply: MockReply) -> dict[str, Any]:
        """Return the list of embeddings, as numbers or in base64."""
        dimensions = reading.count_of(call.body, "dimensions") or _USUAL_DIMENSIONS
        data = []
        for index, text in enumerate(_inputs(call.body)):
            vector = _vector(text, dimensions)
            value: Any = vector
            if call.body.get("encoding_format") == "base64":
                value = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": value})
        prompt, _, _ = reply.counts(call)
        counts = {"prompt_tokens": prompt, "total_tokens": prompt}
        return {"object": "list", "data": data, "model": call.model, "usage": counts}


def _inputs(body: Mapping[str, Any]) -> list[str]:
    given = body.get("input")
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if all(isinstance(part, str) for part in given):
            return given
        if all(isinstance(part, int) for part in given):
            return [" ".join(map(str, given))]
        if all(isinstance(part, list) for part in given):
            return [" ".join(map(str, part)) for part in given]
    raise BodyError("'input' must be a string, or an array of strings or tokens", "input")


def _vector(text: str, dimensions: int) -> list[float]:
    seed = seed_of(text.encode(), 0)
    raw = [unit(seed, 0, n) - 0.5 for n in range(dimensions)]
    length = sum(x * x for x in raw) ** 0.5
    return [x / length for x in raw]
