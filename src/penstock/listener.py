"""Serves an ASGI application over HTTP/1.1, by aiohttp, within stated bounds.

The sidecar and the mock provider share it. aiohttp reads HTTP: it ignores an `Upgrade` that nobody
takes up (RFC 9110, section 7.8), answers pipelined requests in their order, and cancels a request
when its caller goes away, so that cancellation is all that an application needs to know of it. A
caller that closes its sending side counts as gone, as with nginx: TCP cannot tell the two apart.
"""

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.http_exceptions import LineTooLong

from penstock.asgi import Application, AsgiExchange, HeadWriter

BACKLOG = 2048
LOOK_S = 1.0
"""How often connections are looked at: one look over all is cheaper than timers for each."""

DESCRIPTORS_KEPT, DESCRIPTORS_WANTED = 160, 65_536

PROGRESS_BYTES = 1 << 16
"""What a body has to bring to count as going on: a byte a second would cost nothing to send."""

UNREAD_AT_ONCE = 256
"""So many times `Bounds.unread_bytes` may lie unread of all connections together."""

HEADS_AT_ONCE = 256
"""So many of the longest heads, of all connections, may have come of requests that are not at work
yet, whole ones behind another included: of one such an application counts what it holds."""

REFUSED_AT_ONCE = 32
"""Connections above the limit that are still told why; beyond them they are only closed."""


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
            Of all together `UNREAD_AT_ONCE` times as much; beyond, who has read nothing for longest
            is cut.
        unread_timeout_s: how long a caller may read nothing of what it has been sent.

    """

    connections: int = 10_000
    head_bytes: int = 65_536
    head_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    unread_bytes: int = 1 << 20
    unread_timeout_s: float = 60.0


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one, and `::` is IPv4 as well.

    Raises:
        OSError: the address cannot be had.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    sock = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    sock.setblocking(False)
    return sock


def connection_limit(wanted: int) -> int:
    """Return how many callers' connections this process has descriptors for, at most `wanted`.

    Each caller may need one upstream connection beside its own; some room is kept for files and
    for the operators' listener. The soft limit on descriptors is raised to the hard one first.
    """
    try:
        import resource
    except ModuleNotFoundError:  # Windows counts otherwise
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, DESCRIPTORS_WANTED) if hard == resource.RLIM_INFINITY else hard
    if soft < most:
        with contextlib.suppress(ValueError, OSError):  # a container may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return max(1, min(wanted, (soft - DESCRIPTORS_KEPT) // 2))


class Listener:
    """Serves one application on one socket."""

    def __init__(self, application: Application, sock: socket.socket, bounds: Bounds) -> None:
        """Serve nothing yet."""
        self._application = application
        self._socket = sock
        self._bounds = bounds
        self._protocols: _Protocols | None = None
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._late = False

    @property
    def open_connections(self) -> int:
        """How many callers are connected."""
        return 0 if self._protocols is None else len(self._protocols.open)

    async def start(self) -> None:
        """Answer from now on."""
        loop = asyncio.get_running_loop()
        self._protocols = _Protocols(self._handle, self._bounds)
        self._server = await loop.create_server(self._protocols, sock=self._socket)
        self._timer, self._due = loop.call_later(LOOK_S, self._look), loop.time() + LOOK_S

    async def stop(self, grace_s: float) -> None:
        """Accept nobody any more; let what is being answered end, but not longer than the grace."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        if self._protocols is not None:
            self._protocols.pre_shutdown()  # idle connections close at once
            await self._protocols.shutdown(max(grace_s, 0.001))  # 0 would be for ever

    def _look(self) -> None:
        assert self._protocols is not None
        loop = asyncio.get_running_loop()
        now, due = loop.time(), self._due
        self._timer, self._due = loop.call_later(LOOK_S, self._look), now + LOOK_S
        # This process was suspended: what has come meanwhile is read first. One that is late each
        # time looks every other time.
        self._late = now - due > LOOK_S and not self._late
        if self._late:
            return
        connections = list(self._protocols.open)
        over = sum(connection.look(now) for connection in connections)
        over -= UNREAD_AT_ONCE * self._bounds.unread_bytes
        if over > 0:
            for connection in sorted(connections, key=_moved_at):
                link = connection.link
                if over > 0 and link is not None:
                    over -= link.get_write_buffer_size()
                    connection.cut()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("_Connection", request.protocol)
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
                connection.owner.waits(connection)


class _Protocols(web.Server):
    def __init__(
        self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], bounds: Bounds
    ) -> None:
        quiet = logging.getLogger("penstock.listener.aiohttp")  # its texts quote what callers send
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        super().__init__(handle, request_factory=_request, handler_cancellation=True)
        self.bounds = bounds
        self.open: set[_Connection] = set()
        self.waiting: dict[_Connection, None] = {}  # for their callers, since the longest
        self.unread: dict[_Connection, None] = {}  # hold bytes of such requests, since the longest
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

    def __call__(self) -> "_Connection":
        return _Connection(self, asyncio.get_running_loop())

    def hold(self, connection: "_Connection", size_bytes: int) -> None:
        """Count bytes of requests that are not at work; where they are too many, the oldest go."""
        self.unread[connection] = None  # it keeps its place
        self.unread_bytes += size_bytes
        while self.unread_bytes > HEADS_AT_ONCE * self.bounds.head_bytes:
            next(iter(self.unread)).cut()

    def waits(self, connection: "_Connection") -> None:
        """Note that a connection waits for its caller from now on."""
        self.waiting.pop(connection, None)
        self.waiting[connection] = None

    def make_room(self) -> None:
        """Close the connection that has waited for its caller for longest, if there is one."""
        while self.waiting:
            connection = next(iter(self.waiting))
            del self.waiting[connection]
            if connection.give_way():
                return


def _request(message: Any, payload: Any, protocol: Any, _writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    kind = web.BaseRequest
    if message.version not in (HttpVersion10, HttpVersion11):
        # A request line that names no version is of HTTP/0.9, and an answer would begin with it.
        kind, message = _OddRequest, message._replace(version=HttpVersion11)
    return kind(message, payload, protocol, HeadWriter(protocol, loop), task, loop)


class _OddRequest(web.BaseRequest):
    """Of a version that is not served."""


class _Connection(web.RequestHandler):
    """One caller's connection."""

    __slots__ = (
        "acknowledged", "body", "brought_bytes", "busy", "end_bytes", "handled", "held", "late",
        "link", "moved_at", "offer", "owner", "refused", "sent", "since", "unread_bytes",
    )  # fmt: skip

    def __init__(self, owner: _Protocols, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(owner, loop=loop, **owner.make)
        self.owner = owner
        self.link: asyncio.Transport | None = None
        self.busy = False
        self.body: StreamReader | None = None  # of the request before
        self.handled = 0  # how many requests the application has been given
        self.unread_bytes = 0  # of heads, and of requests behind the one at work
        self.held = self.end_bytes = b""  # behind an offer, and the last bytes that were read
        self.offer: tuple[Any, StreamReader] | None = None  # an upgrade's, whose body is coming
        self.refused = False
        self.since: float | None = loop.time()  # when the head that is awaited began; None: not yet
        self.sent = self.acknowledged = 0
        self.late = False  # the end of its idle time was
        self.brought_bytes = 0  # of bodies, since that last counted as going on
        self.moved_at = loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link = cast("asyncio.Transport", transport)
        self.owner.open.add(self)
        if len(self.owner.open) > self.owner.bounds.connections:
            self.owner.make_room()
        over = len(self.owner.open) - self.owner.bounds.connections
        self.refused = over > 0
        if over > REFUSED_AT_ONCE:
            self.link.abort()
        if not self.refused:
            self.link.set_write_buffer_limits(high=self.owner.bounds.unread_bytes)
            self.owner.waits(self)
            super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.refused:
            assert self.link is not None
            self.link.write(_FULL)
            self.link.close()
            return
        if self.since is None and not self.busy and data:
            self.since = asyncio.get_running_loop().time()
        in_head = self._in_head()
        in_body = not in_head and self._in_body()
        begins = in_head and not (self.unread_bytes or self.held or self.offer)
        if begins and not _OFFER.search(data):
            super().data_received(data)  # also b"": so aiohttp asks itself for what it holds back
        else:  # an offer may begin in one piece and end in another, behind whatever comes first
            self._take_in_pieces(self.held + data)
        if data:
            self._count(len(data), in_body=in_body)
            if in_body:
                self.brought_bytes += len(data)
                if self.brought_bytes >= PROGRESS_BYTES:
                    self.brought_bytes = 0
                    self.owner.waits(self)

    def pause_writing(self) -> None:
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

    def _take_in_pieces(self, data: bytes) -> None:
        """Let a piece end wherever a request may end that offers an upgrade.

        aiohttp's parser drops what comes in one piece with that end and behind it.
        """
        self.held = b""
        super().data_received(b"")
        while data:
            if self._reading_paused or self._buffer_paused:  # the parser would join the pieces
                self.held = data
                return
            size, count = self._size_of_piece(data), self._request_count
            self.end_bytes = (self.end_bytes + data[:size])[-3:]
            super().data_received(data[:size])
            data = data[size:]
            if self._request_count != count:
                message, body = self._messages[-1]
                self.offer = (message, body) if getattr(message, "upgrade", False) else None
            if self.offer is not None and self.offer[1].is_eof():
                self.offer = None

    def _size_of_piece(self, data: bytes) -> int:
        """Heads and chunked bodies end in a blank line; how long another body is, its head says."""
        if self.offer is not None and not self.offer[0].chunked:
            message, body = self.offer
            return int(message.headers["content-length"]) - body.total_bytes
        known = len(self.end_bytes)
        end = (self.end_bytes + data).find(b"\r\n\r\n")
        return len(data) if end < 0 else end + 4 - known

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
        self.owner.open.discard(self)
        self.owner.waiting.pop(self, None)
        self.let_go(self.unread_bytes)
        self.link = None
        if not self.refused:
            super().connection_lost(exc)
        self._messages.clear()  # or megabytes of requests wait for the collector of cycles

    def give_way(self) -> bool:
        """Close, if its caller is what is waited for; return whether it is so.

        Who sends nothing, or reads nothing, must not keep out who does.
        """
        if self.link is None or not self._waits_for_caller():
            return False
        self.owner.open.discard(self)
        self.link.abort()
        return True

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


def _moved_at(connection: _Connection) -> float:
    return connection.moved_at


def _has_left(link: asyncio.Transport) -> bool:
    """Return whether the caller has closed its side, where the system tells (Linux)."""
    if not hasattr(socket, "TCP_INFO"):
        return False
    state = link.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] in (_TCP_CLOSE, _TCP_CLOSE_WAIT)


_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8
"""Of Linux (include/net/tcp_states.h)."""

_OFFER = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)

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
