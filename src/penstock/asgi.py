"""One HTTP request of aiohttp's as ASGI: what applications see of the listener."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from aiohttp import HttpVersion11, web
from aiohttp.http import StreamWriter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class CallerConnection(Protocol):
    """What carries a request and its reply.

    Attributes:
        sent: bytes of replies' bodies so far.

    """

    sent: int

    def force_close(self) -> None:
        """End the connection, whatever is under way."""


class AsgiExchange:
    """One request and its reply, between aiohttp and ASGI."""

    __slots__ = (
        "_body",
        "_connection",
        "_ended",
        "_request",
        "_response",
        "_start",
        "_taken",
        "_waited_for",
    )

    def __init__(self, request: web.BaseRequest, connection: CallerConnection) -> None:
        """Answer nothing yet."""
        self._request = request
        self._connection = connection
        self._body = request.content
        self._taken = False
        self._waited_for = request.headers.get("expect", "").lower() == "100-continue"
        self._start: dict[str, Any] | None = None
        self._response: web.StreamResponse | None = None
        self._ended = False

    def scope(self) -> Scope:
        """Return what ASGI knows of the request."""
        request = self._request
        version, target = request.version, request.raw_path
        if target in _PLAIN_TARGETS:
            path = raw_path = target
            query = ""
        else:
            url = request.rel_url
            path, raw_path, query = url.path, url.raw_path, url.raw_query_string
            if path == target and len(_PLAIN_TARGETS) < PLAIN_TARGETS_KEPT:
                _PLAIN_TARGETS.add(target)
        return {
            "type": "http",
            "asgi": _ASGI,
            "extensions": {"penstock.transport": request.transport},
            "http_version": "1.1" if version == HttpVersion11 else f"{version[0]}.{version[1]}",
            "method": request.method,
            "scheme": "http",
            "path": path,
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.raw_headers],
        }

    async def receive(self) -> Message:
        """Return the next piece of the body; after the last one nothing comes any more.

        Raises:
            ValueError: the body is framed wrongly.

        """
        if self._taken:
            await asyncio.get_running_loop().create_future()  # ends when the request is cancelled
        if self._waited_for and not self._body.is_eof():
            self._waited_for = False
            transport = self._request.transport
            if transport is not None:
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            data = await self._body.readany()
        except web.RequestPayloadError as error:
            raise ValueError("the body is framed wrongly") from error
        self._taken = self._body.at_eof()
        return {"type": "http.request", "body": data, "more_body": not self._taken}

    async def send(self, message: dict[str, Any]) -> None:
        """Take the reply's start, then its body piece by piece."""
        if message["type"] == "http.response.start":
            if self._start is not None:
                raise RuntimeError("a reply begins once")
            self._start = message
            return
        start = self._start
        if start is None or self._ended:
            raise RuntimeError("a body comes after the reply's start and before its end")
        body: bytes = message.get("body", b"")
        self._connection.sent += len(body)
        self._ended = not message.get("more_body", False)
        if self._response is None:
            headers, counted = _headers(start)
            if self._ended and counted:  # one write for head and body
                self._response = web.Response(status=start["status"], headers=headers, body=body)
                return
            self._response = web.StreamResponse(status=start["status"], headers=headers)
            if not counted and self._request.version < HttpVersion11:
                self._response.force_close()  # HTTP/1.0 knows no chunks: the close is the end
            await self._response.prepare(self._request)
        if self._ended:
            await self._response.write_eof(body)
        else:  # an empty first piece sends the head; later ones send nothing
            await self._response.write(body)

    def response(self) -> web.StreamResponse:
        """Return the reply; one that was begun and not ended is cut, for its caller to see."""
        if self._response is None:
            raise RuntimeError("the application did not answer")
        if not self._ended:
            self._connection.force_close()
        return self._response


_ASGI = {"version": "3.0", "spec_version": "2.4"}  # 2.4: send raises once the caller left

PLAIN_TARGETS_KEPT = 64
_PLAIN_TARGETS: set[str] = set()
"""Targets that are a path and nothing else: yarl takes 5 us to say so of each request."""


def _headers(start: dict[str, Any]) -> tuple[list[tuple[str, str]], bool]:
    """Return the headers as text, and whether they state the body's length."""
    found = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    named = served = False
    for name, _ in found:
        if name == "content-length":
            named = True
        elif name == "server":
            served = True
    if not served:
        found.append(("server", "penstock"))
    return found, named


class HeadWriter(StreamWriter):
    """Writes a reply to its caller, each of its headers byte by byte as it was given."""

    async def write_headers(self, status_line: str, headers: Any) -> None:
        """Write a head whose text has a character for each byte, which aiohttp takes for UTF-8."""
        try:
            await super().write_headers(status_line, headers)
        except ValueError:  # control characters: aiohttp reads them, and writes none
            clean = type(headers)((name, _CONTROL.sub(" ", said)) for name, said in headers.items())
            await super().write_headers(status_line, clean)
        self._headers_buf = as_bytes(self._headers_buf)

    def send_headers(self) -> None:
        """Keep the head for the first piece, or the end: what belongs together is one write."""


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What no header's value may hold; RFC 9110, section 5.5, lets a relay put a blank in its place."""


def as_bytes(head: bytes | None) -> bytes | None:
    """Return a head in UTF-8 with a byte for each character: HTTP knows no encoding of headers."""
    if head is None or head.isascii():
        return head
    return head.decode().encode("latin-1", "replace")
