"""The connections of one listener: what each may hold, and which must go for the others' sake."""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.http_exceptions import LineTooLong

from penstock.asgi import Application, AsgiExchange, HeadWriter
from penstock.listener.offers import OfferReader

LOOK_S = 1.0
"""How often connections are looked at: one look over all is cheaper than timers for each."""

PROGRESS_BYTES = 1 << 16
"""What a body has to bring to count as going on: a byte a second would cost nothing to send."""

HEADS_AT_ONCE = 256
"""So many of the longest heads, of all connections, may have come of requests that are not at work
yet, whole ones behind another included: of one such an application counts what it holds."""

REFUSED_AT_ONCE = 32
"""Connections above the limit that are still told why, once they ask; beyond them the oldest are
only closed."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one listener allows.

    Attributes:
        connections: how many may be open. For one more, the one gives way that has waited for its
            caller for longest: for a request, the rest of a body, or a reply to be read; where
            none does, it is refused.
        head_bytes: the longest head of a request, its line and headers together.
        head_timeout_s: from a connection's start, or a later request's first byte, to its head.
        keep_alive_s: how long a connection stays open without a request.
        unread_bytes: how much of a reply is kept for a caller that reads slowly; then it is waited.
        unread_room: says how many bytes of all replies may lie unread now; beyond, who has read
            nothing for longest is cut.
        unread_timeout_s: how long a caller may read nothing of what it has been sent.

    """

    connections: int = 10_000
    head_bytes: int = 65_536
    head_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    unread_bytes: int = 1 << 20
    unread_room: Callable[[], int] = lambda: 1 << 26
    unread_timeout_s: float = 60.0


class Connections(web.Server):
    """All connections of a listener, and those that wait for their callers, since the longest."""

    def __init__(self, application: Application, bounds: Bounds) -> None:
        """Have each request answered by the application."""
        quiet = logging.getLogger("penstock.listener.aiohttp")  # its texts quote what callers send
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        super().__init__(self._handle, request_factory=_request, handler_cancellation=True)
        self._application = application
        self.bounds = bounds
        self.open: set[Connection] = set()
        self.refused: dict[Connection, None] = {}  # of those, since the longest
        self.waiting: dict[Connection, None] = {}  # for their callers, since the longest
        self.unread: dict[Connection, None] = {}  # hold bytes of such requests, since the longest
        self.unread_bytes = 0
        self.make: dict[str, Any] = {
            "keepalive_timeout": bounds.keep_alive_s,
            "max_line_size": bounds.head_bytes,
            "max_field_size": bounds.head_bytes,
            "auto_decompress": False,
            "access_log": None,
            "logger": quiet,
            "lingering_time": 1.0,  # to let a refused body's sender read why
        }

    def __call__(self) -> "Connection":
        """Return the protocol of a connection that a caller opens."""
        return Connection(self, asyncio.get_running_loop())

    def hold(self, connection: "Connection", size_bytes: int) -> None:
        """Count bytes of requests that are not at work; where they are too many, the oldest go."""
        self.unread[connection] = None  # it keeps its place
        self.unread_bytes += size_bytes
        while self.unread_bytes > HEADS_AT_ONCE * self.bounds.head_bytes:
            next(iter(self.unread)).cut()

    def waits(self, connection: "Connection") -> None:
        """Note that a connection waits for its caller from now on."""
        self.waiting.pop(connection, None)
        self.waiting[connection] = None

    def has_room(self) -> bool:
        """Return whether the newest can be served; who has waited for longest gives way to it."""
        while len(self.open) - len(self.refused) > self.bounds.connections:
            if not self.waiting:
                return False
            connection = next(iter(self.waiting))
            del self.waiting[connection]
            connection.give_way()
        return True

    def refuse(self, connection: "Connection") -> None:
        """Let a connection ask, to be told that there is no room; it counts for none that there is.

        Who never asks must not keep out those who come later.
        """
        self.refused[connection] = None
        if len(self.refused) > min(REFUSED_AT_ONCE, self.bounds.connections):
            next(iter(self.refused)).give_way()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        exchange = AsgiExchange(request, connection)
        connection.busy, connection.body = True, request.content
        connection.taken_up()
        try:
            if isinstance(request, _OddRequest):
                return connection.handle_error(request, 400)
            await self._application(exchange.scope(), exchange.receive, exchange.send)
            return exchange.response()
        finally:
            connection.busy = False
            if connection.link is not None:
                self.waits(connection)


def _request(message: Any, payload: Any, protocol: Any, _writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    kind = web.BaseRequest
    if message.version not in (HttpVersion10, HttpVersion11):
        # A request line that names no version is of HTTP/0.9, and an answer would begin with it.
        kind, message = _OddRequest, message._replace(version=HttpVersion11)
    return kind(message, payload, protocol, HeadWriter(protocol, loop), task, loop)


class _OddRequest(web.BaseRequest):
    """Of a version that is not served."""


class Connection(OfferReader):
    """One caller's connection."""

    __slots__ = (
        "acknowledged", "body", "brought_bytes", "busy", "handled", "late", "link", "moved_at",
        "owner", "refused", "sent", "since", "unread_bytes",
    )  # fmt: skip

    def __init__(self, owner: Connections, loop: asyncio.AbstractEventLoop) -> None:
        """Await the first head from now on."""
        super().__init__(owner, loop, owner.make)
        self.owner = owner
        self.link: asyncio.Transport | None = None
        self.busy = False
        self.body: StreamReader | None = None  # of the request before
        self.handled = 0  # how many requests the application has been given
        self.unread_bytes = 0  # of heads, and of requests behind the one at work
        self.refused = False
        self.since: float | None = loop.time()  # when the head that is awaited began; None: not yet
        self.sent = self.acknowledged = 0
        self.late = False  # the end of its idle time was
        self.brought_bytes = 0  # of bodies, since that last counted as going on
        self.moved_at = loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read, or refuse where too many are open and none of them gives way."""
        self.link = cast("asyncio.Transport", transport)
        self.owner.open.add(self)
        self.refused = not self.owner.has_room()
        if self.refused:
            self.owner.refuse(self)
        else:
            self.link.set_write_buffer_limits(high=self.owner.bounds.unread_bytes)
            self.owner.waits(self)
            super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Count what has come, and parse it."""
        if self.refused:
            assert self.link is not None
            self.link.write(_FULL)
            self.link.close()
            return
        if self.since is None and not self.busy and data:
            self.since = asyncio.get_running_loop().time()
        in_head = self._in_head()
        in_body = not in_head and self._in_body()
        self.take(data, begins=in_head and not self.unread_bytes)
        if data:
            self._count(len(data), in_body=in_body)
            if in_body:
                self.brought_bytes += len(data)
                if self.brought_bytes >= PROGRESS_BYTES:
                    self.brought_bytes = 0
                    self.owner.waits(self)

    def pause_writing(self) -> None:
        """Note that the caller does not read."""
        super().pause_writing()
        self.owner.waits(self)

    def _process_keepalive(self) -> None:
        """End an idle connection; not while what came as the process was suspended is unread."""
        loop = asyncio.get_running_loop()
        self.late = loop.time() - self._next_keepalive_close_time > LOOK_S and not self.late
        if self.late:
            self._keepalive_handle = loop.call_later(LOOK_S, self._process_keepalive)
        else:
            super()._process_keepalive()

    def _in_head(self) -> bool:
        """Return whether what comes next is of a head: every request before has come whole."""
        if self.busy or self._request_count != self.handled:
            return False
        return self.body is None or self.body.is_eof()

    def _in_body(self) -> bool:
        """Return whether what comes next is of the body at work, or of the one that will be."""
        if self.busy:
            return self.body is not None and not self.body.is_eof()
        return bool(self._messages) and not self._messages[-1][1].is_eof()

    def _count(self, size_bytes: int, *, in_body: bool) -> None:
        """Bound what has come of heads, and of requests behind the one at work.

        aiohttp bounds each of a head's 128 headers, and the requests behind by their number.
        """
        behind = self._request_count - self.handled - (not self.busy)
        if behind <= 0 and (
            in_body or (behind == 0 and not self.busy)
        ):  # all is, or will be, at work
            if self.unread_bytes:
                self.let_go(self.unread_bytes)
            return
        self.unread_bytes += size_bytes
        if behind <= 0 and self.unread_bytes > self.owner.bounds.head_bytes:
            if self.link is not None and not self.busy:
                self.link.write(_TOO_LONG)
            self.force_close()
        self.owner.hold(self, size_bytes)

    def taken_up(self) -> None:
        """Note that a request is at work; those behind it hold their part of what has come."""
        self.handled += 1
        if self.body is not None and not self.body.is_eof():
            self.owner.waits(self)
        if self.unread_bytes:
            behind = self._request_count - self.handled
            self.let_go(self.unread_bytes - self.unread_bytes * behind // (behind + 1))

    def let_go(self, size_bytes: int) -> None:
        """Count so many bytes less of requests that are not at work."""
        self.unread_bytes -= size_bytes
        self.owner.unread_bytes -= size_bytes
        if not self.unread_bytes:
            self.owner.unread.pop(self, None)

    def cut(self) -> None:
        """Close, and forget what has come."""
        self.let_go(self.unread_bytes)
        if self.link is not None:
            self.link.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection, and cancel what is answered on it."""
        self.owner.open.discard(self)
        self.owner.waiting.pop(self, None)
        self.owner.refused.pop(self, None)
        self.let_go(self.unread_bytes)
        self.link = None
        if not self.refused:
            super().connection_lost(exc)
        self._messages.clear()  # or megabytes of requests wait for the collector of cycles

    def give_way(self) -> None:
        """Close, if its caller is what is waited for.

        Who sends nothing, or reads nothing, must not keep out who does.
        """
        if self.link is not None and self._waits_for_caller():
            self.owner.open.discard(self)
            self.owner.refused.pop(self, None)
            self.link.abort()

    def _waits_for_caller(self) -> bool:
        if self.writing_paused:
            return True
        if not self.busy:
            return self._request_count == self.handled
        return self.body is not None and not self.body.is_eof() and not self._reading_paused

    def look(self, now: float) -> int:
        """Close a connection whose caller sends no head, has left, or reads nothing it was sent.

        Return how many bytes lie unread on one that stays open.
        """
        if self.link is None:
            return 0
        unread = self.link.get_write_buffer_size()
        acknowledged = self.sent - unread
        if not unread or acknowledged > self.acknowledged:
            self.moved_at = now
        self.acknowledged = acknowledged
        if self._is_to_end(self.link, now):
            self.cut()
            return 0
        return unread

    def _is_to_end(self, link: asyncio.Transport, now: float) -> bool:
        bounds = self.owner.bounds
        if self.busy:
            self.since = None
            if (self._reading_paused or self._buffer_paused) and _has_left(link):
                return True  # its end stands behind what is not read yet
        elif self.since is not None and now - self.since >= bounds.head_timeout_s:
            return True
        return now - self.moved_at >= bounds.unread_timeout_s

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP; the library's own text quotes what was sent."""
        if isinstance(exc, LineTooLong) or "Too many headers" in str(exc):
            status = 431
        text = _HEAD_TOO_LONG if status == 431 else _NOT_HTTP if status == 400 else _FAILED
        response = web.Response(status=status, body=text, headers=_JSON)
        response.force_close()
        return response


def _has_left(link: asyncio.Transport) -> bool:
    """Return whether the caller has closed its side, where the system tells (Linux)."""
    if not hasattr(socket, "TCP_INFO"):
        return False
    state = link.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] in (_TCP_CLOSE, _TCP_CLOSE_WAIT)


_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8
"""Of Linux (include/net/tcp_states.h)."""

_JSON = {"content-type": "application/json", "server": "penstock"}


def _error(code: str, message: str) -> bytes:
    return (
        b'{"type":"error","error":{"type":"invalid_request_error","code":"%s","message":"%s"}}'
        % (code.encode(), message.encode())
    )


_NOT_HTTP = _error("not_http", "The request is not HTTP/1.1 as RFC 9112 has it.")
_HEAD_TOO_LONG = _error("head_too_long", "The headers are too long, or too many.")
_FAILED = _error("internal", "The server failed; its log says where.")
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(_HEAD_TOO_LONG)
) + _HEAD_TOO_LONG
_NO_ROOM = _error("too_many_connections", "Too many connections are open: close some, or wait.")
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(_NO_ROOM)
) + _NO_ROOM
