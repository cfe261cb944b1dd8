"""A provider that keeps what it makes: responses, conversations and files, by its own ids."""

import contextlib
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.listening import serving_http


class Keeper:
    """What one such provider has, and what it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [f"{method} {target}" for method, target, _, _ in self.asked]

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        path = target.partition("?")[0]
        if method == "POST" and path == "/v1/responses":
            return self._respond(json.loads(body))
        if method == "POST" and path in ("/v1/files", "/v1/conversations"):
            return 200, self._keep("file" if path.endswith("files") else "conv", body)
        id_ = re.sub(r"^/v1/(?:responses|files|conversations)/([^/]+).*$", r"\1", path)
        if id_ in self.kept:
            if method == "DELETE":
                del self.kept[id_]
            return 200, {"id": id_, "deleted": method == "DELETE"}
        if path.startswith(("/v1/responses/", "/v1/files/", "/v1/conversations/")):
            return 404, {"error": {"message": f"No such object: {id_}", "code": None}}
        return 200, {"object": "list", "data": [], "by": self.name}

    def _respond(self, body: dict[str, Any]) -> tuple[int, Any]:
        text = json.dumps(body)
        for id_ in re.findall(r'"((?:resp|conv|file)-[^"]+)"', text):
            if id_ not in self.kept:
                code = "previous_response_not_found" if id_.startswith("resp") else None
                status = 400 if code else 404
                return status, {"error": {"message": f"{id_} not found", "code": code}}
        made = self._keep("resp", text.encode())
        usage = {"input_tokens": 3, "output_tokens": 4}
        return 200, {**made, "object": "response", "status": "completed", "output": [],
                     "usage": usage}  # fmt: skip

    def _keep(self, kind: str, content: bytes) -> dict[str, Any]:
        id_ = f"{kind}-{self.name}-{len(self.kept)}"
        self.kept[id_] = content
        return {"id": id_}


@contextlib.contextmanager
def keeper(name: str, kind: type[Keeper] = Keeper) -> Iterator[Keeper]:
    it = kind(name)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self._body()
            headers = {key.lower(): value for key, value in self.headers.items()}
            it.asked.append((self.command, self.path, headers, body))
            status, document = it.answer(self.command, self.path, body)
            is_json = not isinstance(document, bytes)
            data = json.dumps(document).encode() if is_json else document
            self.send_response(status)
            self.send_header("content-type", "application/json" if is_json else "audio/mpeg")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = do_DELETE = do_PUT = _serve  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole

    with serving_http(Handler) as it.port:
        yield it
