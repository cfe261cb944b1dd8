"""OpenAI's calls that are answered whole: pictures, sound, verdicts, ranks; each takes ttft_s."""

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from penstock.sim.chance import unit
from penstock.sim.mock import reading
from penstock.sim.mock.call import CREATED_UNIX_S, BodyError, MockCall, MockEndpoint, MockReply
from penstock.sim.mock.words import count_tokens, seed_of

FILE = "(file)"
"""What a form's field says that holds a file: its content means nothing here."""


class Images(MockEndpoint):
    """POST /v1/images/generations and /edits: `n` pictures of one black point, as PNG."""

    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError."""
        tokens = count_tokens(reading.text_of(body, "prompt"))
        replies = reading.count_of(body, "n") or 1
        model = str(body.get("model") or "dall-e-2")
        return MockCall(model, tokens, replies=replies, reply_tokens=0, body=body)

    def whole(self, call: MockCall, reply: MockReply) -> dict[str, Any]:
        """Return the pictures and what they cost."""
        prompt, _, output = reply.counts(call)
        usage = {"input_tokens": prompt, "output_tokens": output, "total_tokens": prompt + output}
        data = [{"b64_json": _POINT} for _ in range(call.replies)]
        return {"created": CREATED_UNIX_S, "data": data, "usage": usage}


class Speech(MockEndpoint):
    """POST /v1/audio/speech: a tenth of a second of silence for each word, as WAV."""

    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError."""
        reading.text_of(body, "voice")
        tokens = count_tokens(reading.text_of(body, "input"))
        return MockCall(reading.text_of(body, "model"), tokens, reply_tokens=0, body=body)

    def whole(self, call: MockCall, reply: MockReply) -> bytes:
        """Return the sound."""
        silence = bytes(call.prompt_tokens * _RATE_HZ // 10 * 2)
        kind = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, _RATE_HZ, _RATE_HZ * 2, 2, 16)
        body = b"WAVE" + kind + b"data" + struct.pack("<I", len(silence)) + silence
        return b"RIFF" + struct.pack("<I", len(body)) + body


class Transcriptions(MockEndpoint):
    """POST /v1/audio/transcriptions and /translations: the drawn reply as what was heard."""

    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError."""
        if body.get("file") != FILE:
            raise BodyError("'file' must be a file of a multipart form", "file")
        return MockCall(reading.text_of(body, "model"), 0, body=body)

    def whole(self, call: MockCall, reply: MockReply) -> dict[str, Any]:
        """Return the text, with a usage in tokens."""
        prompt, _, output = reply.counts(call)
        usage = {"input_tokens": prompt, "output_tokens": output, "total_tokens": prompt + output}
        return {"text": reply.text, "usage": {"type": "tokens", **usage}}


class Moderations(MockEndpoint):
    """POST /v1/moderations: nothing is flagged."""

    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError."""
        tokens = sum(count_tokens(str(each)) for each in _listed(body, "input"))
        model = str(body.get("model") or "omni-moderation-latest")
        return MockCall(model, tokens, reply_tokens=0, body=body)

    def whole(self, call: MockCall, reply: MockReply) -> dict[str, Any]:
        """Return a verdict for each input."""
        nothing = {
            "flagged": False,
            "categories": dict.fromkeys(_CATEGORIES, False),
            "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        }
        results = [nothing for _ in _listed(call.body, "input")]
        return {"id": f"modr-mock{reply.id}", "model": call.model, "results": results}


class Rerank(MockEndpoint):
    """POST /v1/rerank, as Cohere, Jina and vLLM have it; scores depend on the texts alone."""

    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError."""
        texts = [reading.text_of(body, "query"), *map(str, _listed(body, "documents"))]
        reading.count_of(body, "top_n")
        tokens = sum(map(count_tokens, texts))
        return MockCall(reading.text_of(body, "model"), tokens, reply_tokens=0, body=body)

    def whole(self, call: MockCall, reply: MockReply) -> dict[str, Any]:
        """Return the documents' places, the best first."""
        query = str(call.body["query"])
        scored = sorted(
            (-round(unit(seed_of(f"{query}\0{text}".encode(), 0), 0, 0), 6), index)
            for index, text in enumerate(_listed(call.body, "documents"))
        )
        results = [{"index": index, "relevance_score": -score} for score, index in scored]
        most = reading.count_of(call.body, "top_n") or len(results)
        usage = {"total_tokens": reply.counts(call)[0]}
        return {"id": f"rerank-mock{reply.id}", "model": call.model, "results": results[:most],
                "usage": usage}  # fmt: skip


_RATE_HZ = 8000
_CATEGORIES = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")


def _listed(body: Mapping[str, Any], key: str) -> list[Any]:
    given = body.get(key)
    items = given if isinstance(given, list) else [given]
    if not items or any(item is None for item in items):
        raise BodyError(f"'{key}' must be a text or a non-empty array", key)
    return items


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


_POINT = base64.b64encode(
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(b"\0\0"))
    + _chunk(b"IEND", b"")
).decode()
