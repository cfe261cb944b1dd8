"""OpenAI's files: kept in memory, and asked for again by their ids."""

import hashlib
from collections import OrderedDict
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from penstock.sim.mock.answers import ClientError, json_response, response
from penstock.sim.mock.call import CREATED_UNIX_S

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
