"""OpenAI's calls that are answered whole: models, files, embeddings, pictures, sound, ranks.

Pictures and what comes after them take ttft_s each; files are kept in memory.
"""

import base64
import hashlib
import struct
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from penstock.sim.calls import unit
from penstock.sim.mock import reading
from penstock.sim.mock.answers import ClientError, json_response, response
from penstock.sim.mock.call import CREATED_UNIX_S, BodyError, MockCall, MockEndpoint, MockReply
from penstock.sim.mock.words import count_tokens, seed_of

_DEFAULT = ("mock-model",)


def model(vendor: str, name: str) -> dict[str, Any]:
    """Return a model's page."""
    if vendor == "anthropic":
        at = "2026-01-01T00:00:00Z"
        return {"type": "model", "id": name, "display_name": name, "created_at": at}
    return {"id": name, "object": "model", "created": CREATED_UNIX_S, "owned_by": "mock"}


def model_list(vendor: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the list of models; of one where none is named."""
    names = names or _DEFAULT
    models = [model(vendor, name) for name in names]
    if vendor == "anthropic":
        ends = {"first_id": names[0], "last_id": names[-1]}
        return {"data": models, "has_more": False} | ends
    return {"object": "list", "data": models}


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


MOST_BYTES = 64 << 20
"""Of all files together; the oldest give way."""


class KeptFiles:
    """Files by their id, which follows from name, purpose and content: a story repeats."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._files: OrderedDict[str, tuple[dict[str, Any], bytes]] = OrderedDict()
        self._size_bytes = 0

    async def upload(self, request: Request) -> Response:
        """Keep the file of a form, and answer with its description."""
        async with request.form() as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not isinstance(file, UploadFile):
                raise ClientError(400, "Missing required parameter: 'file'.", param="file")
            if not isinstance(purpose, str) or not purpose:
                raise ClientError(400, "Missing required parameter: 'purpose'.", param="purpose")
            content, name = await file.read(), file.filename or ""
        digest = hashlib.sha256(f"{purpose}\n{name}\n".encode() + content).hexdigest()
        named = f"file-{digest[:24]}"
        document = {
            "id": named,
            "object": "file",
            "bytes": len(content),
            "created_at": CREATED_UNIX_S,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self._drop(named)
        self._files[named] = (document, content)
        self._size_bytes += len(content)
        while self._size_bytes > MOST_BYTES:
            self._drop(next(iter(self._files)))
        return json_response(document)

    async def listing(self, request: Request) -> Response:
        """Answer with the files of a purpose, or all, the newest first."""
        wanted = request.query_params.get("purpose")
        found = [each for each, _ in reversed(self._files.values())]
        data = [each for each in found if wanted in (None, each["purpose"])]
        return json_response({"object": "list", "data": data, "has_more": False})

    async def retrieve(self, request: Request) -> Response:
        """Answer with a file's description."""
        return json_response(self._at(request)[0])

    async def content(self, request: Request) -> Response:
        """Answer with what is in a file."""
        return response(self._at(request)[1], content_type="application/octet-stream")

    async def delete(self, request: Request) -> Response:
        """Keep a file no longer."""
        named = self._at(request)[0]["id"]
        self._drop(named)
        return json_response({"id": named, "object": "file", "deleted": True})

    def _drop(self, named: str) -> None:
        _, content = self._files.pop(named, ({}, b""))
        self._size_bytes -= len(content)

    def _at(self, request: Request) -> tuple[dict[str, Any], bytes]:
        named = request.path_params["id"]
        if named not in self._files:
            raise ClientError(404, f"No such File object: {named}", param="id")
        return self._files[named]


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
