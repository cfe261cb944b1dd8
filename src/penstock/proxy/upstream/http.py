"""HTTP to one upstream, by aiohttp: bytes go through as they are, and nothing is sent twice unseen.

aiohttp keeps the connections, speaks TLS and to proxies, and reads HTTP. What a relay needs beyond
that stands here: a pooled connection on which bytes arrived that answer no request is not used, and
an error says whether the upstream may have acted on the request.
"""

import asyncio
import io
import math
from collections.abc import AsyncIterable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.client import IDEMPOTENT_METHODS
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from penstock.asgi import as_bytes
from penstock.proxy.config.forward_proxy import Address, ForwardProxy
from penstock.proxy.declined import (
    CrossedError,
    DialError,
    MalformedError,
    ResetError,
    SilenceError,
    UpstreamError,
)
from penstock.proxy.headers import Header, is_ascii
from penstock.wire.framing import LastChunk, body_left, mended

LONG_IDLE_S, AT_ONCE_S = 1.0, 0.01
"""Where a request and an idle upstream's goodbye cross on the way, it looks as if the upstream had
read and closed. Servers give up on idle connections after seconds, and the goodbye comes at once;
what has read a request and breaks takes longer, or was busy a moment ago."""

BUFFER_BYTES = 262_144
"""Unread bytes of a reply above which reading stops, so that a slow caller slows the upstream."""

LATE_S = 1.0
"""A timer that fires later was held up with the whole process (SIGSTOP, a frozen container): what
came meanwhile waits in the socket, and event loops tell of timers first. It has so long again."""

HEAD_BYTES = 65_536
"""How much may come that brings a reply no further: its head with all interim ones (1xx), what is
said of a chunk, trailers. What sends more is no provider."""

LARGE_BODY_BYTES = 1 << 20
"""Larger bodies are written piece by piece, as the upstream takes them."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for an upstream, in seconds.

    Attributes:
        connect_s: for a connection, TLS included.
        first_byte_s: from the request's last byte to the end of the answer's headers.
        between_bytes_s: between two pieces of the answer's body.
        idle_s: how long an unused connection is kept; below what servers usually keep.

    """

    connect_s: float = 10.0
    first_byte_s: float = 600.0
    between_bytes_s: float = 300.0
    idle_s: float = 30.0


class _StaleError(aiohttp.ClientConnectionError):
    """A pooled connection had bytes on it that answer no request; nothing was sent."""


class _NoAnswerError(aiohttp.ClientConnectionError):
    """A connection ended before the answer's head.

    Attributes:
        reused: whether it had served others, and no byte came.
        again: whether the request may be sent again unseen.

    """

    def __init__(self, *, reused: bool, again: bool) -> None:
        super().__init__()
        self.reused = reused
        self.again = again


class _WireConnection(ResponseHandler):
    """A connection on which only a reply's progress is a sign of life.

    To aiohttp every byte is one, after an interim answer (1xx) it waits for ever, and it bounds
    each header by itself. It also sets a timer anew with every piece; here one that is too early
    fires for nothing.
    """

    def __init__(self, used: "WeakSet[_WireConnection]", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._used = used
        self.used_at: float | None = None
        self._silent_until = math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._late = False
        self._awaits_head = False
        self._left_bytes: int | None = None  # of the body, where its length is stated
        self._last_chunk = LastChunk()
        self._receiving = False
        self._reply: Any = None
        self._body_bytes = 0
        self._barren_bytes = 0

    def begin_request(self) -> None:
        """Count it as used, and await the head of the answer to what is written next."""
        if self.used_at is None:  # its first request
            self._used.add(self)
        self._barren_bytes = 0
        self._awaits_head = True
        self._left_bytes = None
        self._last_chunk = LastChunk()

    @property
    def is_mute(self) -> bool:
        """Whether no byte has come since the request began."""
        return not self._barren_bytes

    def head_came(self) -> None:
        """Wait for nothing more before the next piece is asked for."""
        self._awaits_head = False
        self._silent_until = math.inf

    def data_received(self, data: bytes) -> None:
        """Read on; no data are aiohttp's word that its parser may go on where it was held back."""
        self._receiving = True
        if self._awaits_head and (better := mended(data)) is not data:
            self.force_close()  # after it: who frames an answer twice may have framed two
            data = better
        if self._left_bytes is not None:
            self._left_bytes -= len(data)
        elif self._awaits_head:
            self._left_bytes = body_left(data)
        if self._left_bytes is not None and self._left_bytes < 0:
            # Behind its end: no part of the answer (RFC 9112, section 6.3), which is well.
            data, self._left_bytes = data[: self._left_bytes], 0
            self.force_close()
        self._take(data)
        self._receiving = False
        reply = self._payload
        body_bytes = 0 if reply is None else reply.total_bytes
        if reply is not self._reply or body_bytes != self._body_bytes:
            self._reply, self._body_bytes, self._barren_bytes = reply, body_bytes, 0
            if reply is not None and not reply.is_eof() and not self._reading_paused:
                self._reschedule_timeout()
            return
        self._barren_bytes += len(data)
        if self._barren_bytes > HEAD_BYTES and self.transport is not None:
            self.transport.close()
            self.set_exception(aiohttp.http.HttpProcessingError(code=400))
            if reply is not None:
                reply.set_exception(aiohttp.ClientPayloadError())

    def _take(self, data: bytes) -> None:
        """Let aiohttp read; behind a last chunk it reads the next answer, which there is none."""
        while self._left_bytes is None and data:
            end = self._last_chunk.end_in(data)
            super().data_received(data[:end])
            data = data[end:]
            if not data:
                return
            if self._payload is not None and self._payload.is_eof():
                self.force_close()
                return
        super().data_received(data)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on, where reading was held back; aiohttp asks for that after every piece."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._alarm is not None:  # it would keep a closed connection for minutes
            self._alarm.cancel()

    def _reschedule_timeout(self) -> None:
        if self._receiving or not self._read_timeout:
            return
        until = self._silent_until = self._loop.time() + self._read_timeout
        if until < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._set_alarm(until)

    def _drop_timeout(self) -> None:
        if not (self._receiving and self._awaits_head):  # an interim answer ends no wait
            self._silent_until = math.inf

    def _set_alarm(self, at: float) -> None:
        self._alarm_at = at
        self._alarm = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        due, now = self._alarm_at, self._loop.time()
        self._alarm, self._alarm_at = None, math.inf
        self._late = now - due > LATE_S and not self._late  # one that is always late is believed
        if self._late and self._silent_until < math.inf:
            self._silent_until = max(self._silent_until, now + LATE_S)
        if self._silent_until <= now:
            self._on_read_timeout()
        elif self._silent_until < math.inf:
            self._set_alarm(self._silent_until)


class _WireRequest(aiohttp.ClientRequest):
    wants_fresh = False
    """Whether no connection will do that has served others."""

    _skip_auto_headers = frozenset((aiohttp.hdrs.CONTENT_TYPE,))  # type: ignore[assignment]

    def update_auto_headers(self, skip_auto_headers: object) -> None:
        """Add none: what goes up is what was given."""

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        protocol = conn.protocol
        if not isinstance(protocol, _WireConnection) or protocol.should_close:
            raise _StaleError
        if self.wants_fresh and protocol.used_at is not None:
            raise _StaleError
        protocol.begin_request()
        return await super().send(conn)

    def write_bytes(
        self,
        writer: Any,
        conn: aiohttp.connector.Connection,
        content_length: int | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Write the body, and the head that waits for it: as bytes, where aiohttp has UTF-8."""
        writer._headers_buf = as_bytes(writer._headers_buf)  # noqa: SLF001 - its only hook
        return super().write_bytes(writer, conn, content_length)


class _Response(aiohttp.ClientResponse):
    protocol: _WireConnection | None = None

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        protocol = connection.protocol
        assert isinstance(protocol, _WireConnection)  # the request was sent on it
        self.protocol = protocol
        loop = asyncio.get_running_loop()
        began, idle_since = loop.time(), protocol.used_at
        protocol.used_at = began
        try:
            return await super().start(connection)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            idle_s = -1.0 if idle_since is None or not protocol.is_mute else began - idle_since
            crossed = idle_s >= LONG_IDLE_S and loop.time() - began <= AT_ONCE_S
            again = crossed or self.method in IDEMPOTENT_METHODS
            raise _NoAnswerError(reused=idle_s >= 0.0, again=again) from None
        finally:
            protocol.head_came()


class UpstreamAnswer:
    """An upstream's answer while it arrives. `close` it whatever happens."""

    __slots__ = ("_content", "_response", "headers", "status")

    def __init__(self, response: _Response, between_bytes_s: float) -> None:
        """Hold the connection until closed."""
        self._response = response
        self._content = response.content
        self.status = response.status
        self.headers: list[Header] = [(k.lower(), v) for k, v in response.raw_headers]
        protocol = response.protocol
        if protocol is not None and not self._content.is_eof():
            protocol.read_timeout = between_bytes_s
            protocol.start_timeout()

    async def chunk(self) -> bytes:
        """Wait for body bytes, all that have arrived; b"" at the end.

        Raises:
            UpstreamError: the connection broke, fell silent or spoke no HTTP.

        """
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _broken(error, "within its answer") from None

    @property
    def complete(self) -> bool:
        """True if the whole body has been read."""
        return self._content.at_eof()

    @property
    def ended(self) -> bool:
        """True if the upstream has sent everything, read or not."""
        return self._content.is_eof()

    def close(self) -> None:
        """Give the connection back if the answer is complete, else close it. Twice is once."""
        protocol = self._response.protocol
        if self._content.is_eof() and protocol is not None:
            protocol.used_at = asyncio.get_running_loop().time()
        self._response.close()


class HttpClient:
    """The connections to one upstream."""

    def __init__(
        self, address: Address, timeouts: Timeouts, through: ForwardProxy | None = None
    ) -> None:
        """Dial nothing yet; `through` is the proxy to go through."""
        self._address = address
        self._timeouts = timeouts
        self._through = through
        self._proxy = None if through is None else URL.build(
            scheme="http", host=through.host, port=through.port
        )  # fmt: skip
        self._proxy_headers: dict[str, str] = {}
        self._always: list[tuple[str, str]] = [("accept-encoding", "identity")]
        if through is not None and through.authorization:
            # A tunnel is asked for with it; without one each request goes by the proxy.
            if address.tls:
                self._proxy_headers["proxy-authorization"] = through.authorization
            else:
                self._always.append(("proxy-authorization", through.authorization))
        self._base, self._there = address.base_url, f"{address.host}:{address.port}"
        self._used: WeakSet[_WireConnection] = WeakSet()
        self._patience = aiohttp.ClientTimeout(connect=timeouts.connect_s)
        self._connector: aiohttp.TCPConnector | None = None
        self._closed = False

    @property
    def open_connections(self) -> int:
        """How many connections are open, idle ones included."""
        return sum(connection.is_connected() for connection in self._used)

    async def send(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterable[bytes],
        *,
        fresh: bool = False,
    ) -> UpstreamAnswer:
        """Send a request and wait for the answer's headers.

        A warm connection may turn out to have been closed by the upstream while it idled. Where
        that is sure, or likely (see `LONG_IDLE_S`), or the method may be repeated (RFC 9110,
        section 9.2.2), the request goes out once more on a fresh one. Otherwise the upstream may
        have acted on it, and whether it goes out again is the scheduler's business: it counts
        attempts, and has a budget for them. With `fresh` no warm connection is used: those that
        idle are closed.

        Raises:
            DialError: no connection came about.
            CrossedError: a warm connection ended without a byte of the answer.
            UpstreamError: the connection broke, fell silent or spoke no HTTP.

        """
        sent = 1
        while True:
            try:
                response = await self._once(method, target, headers, body, fresh=fresh)
            except _StaleError:
                continue  # nothing was sent, and that connection is closed now
            except _NoAnswerError as error:
                # What has passed piece by piece cannot be sent again.
                if error.again and sent == 1 and isinstance(body, bytes):
                    sent, fresh = 2, True
                    continue
                kind = CrossedError if error.reused else ResetError
                raise kind("the upstream closed the connection before it answered") from None
            except aiohttp.ClientConnectorError as error:
                raise self._no_connection(_reason(error)) from None
            except aiohttp.ClientHttpProxyError as error:
                more = " (it wants a user name and a password: give them in HTTPS_PROXY)"
                why = f"{error.status} {error.message[:100]}{more if error.status == 407 else ''}"
                raise self._no_tunnel(why) from None
            except aiohttp.ClientResponseError as error:
                if error.request_info.method == "CONNECT":
                    raise self._no_tunnel("its answer is not HTTP") from None
                raise MalformedError("the upstream's answer is not HTTP") from None
            except (aiohttp.ClientError, TimeoutError) as error:
                raise _broken(error, "before it answered") from None
            except (OSError, ValueError) as error:  # a name that cannot be encoded is no OSError
                raise self._no_connection(type(error).__name__) from None
            return UpstreamAnswer(response, self._timeouts.between_bytes_s)

    async def _once(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterable[bytes],
        *,
        fresh: bool,
    ) -> _Response:
        connector = self._opened()
        large = isinstance(body, bytes) and len(body) > LARGE_BODY_BYTES
        data = io.BytesIO(body) if large and isinstance(body, bytes) else body
        request = _WireRequest(
            method,
            URL(self._base + target, encoded=True),
            headers=[*headers, *self._always],
            data=data if body or method == "POST" or not is_ascii(headers) else None,
            loop=asyncio.get_running_loop(),
            response_class=_Response,
            proxy=self._proxy,
            proxy_headers=self._proxy_headers or None,
        )
        request.wants_fresh = fresh
        try:
            connection = await connector.connect(request, [], self._patience)
        except TimeoutError:
            raise self._no_connection(f"none within {self._timeouts.connect_s:g} s") from None
        try:
            return await self._on(connection, request)
        except BaseException:
            connection.close()
            raise

    async def _on(
        self, connection: aiohttp.connector.Connection, request: _WireRequest
    ) -> _Response:
        """Send a request on a connection; what a session of aiohttp's adds to that is not wanted.

        It follows redirects, keeps cookies, and looks at each of thirty options: 4 % of a request.
        """
        protocol = connection.protocol
        assert protocol is not None  # it was taken a moment ago
        protocol.set_response_params(
            skip_payload=request.method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=self._timeouts.first_byte_s,
            read_bufsize=BUFFER_BYTES,
            max_line_size=HEAD_BYTES,
            max_field_size=HEAD_BYTES,
            max_headers=HEAD_BYTES,  # all together are bounded as they come
        )
        response = await request.send(connection)
        assert isinstance(response, _Response)
        try:
            await response.start(connection)
        except BaseException:
            response.close()
            raise
        return response

    def _opened(self) -> aiohttp.TCPConnector:
        if self._closed:
            raise DialError("the client is closed: was a request sent after the drain?")
        if self._connector is None:
            tls = self._address.tls_context()
            self._connector = aiohttp.TCPConnector(
                limit=0,  # their number is the scheduler's business
                keepalive_timeout=self._timeouts.idle_s,
                ssl=True if tls is None else tls,
            )
            make = partial(_WireConnection, self._used, asyncio.get_running_loop())
            self._connector._factory = make  # type: ignore[assignment]  # noqa: SLF001 - tests hold it
        return self._connector

    def _no_connection(self, reason: str) -> DialError:
        proxy = self._through
        through = "" if proxy is None else f" through the proxy {proxy.host}:{proxy.port}"
        return DialError(f"no connection to {self._there}{through}: {reason}")

    def _no_tunnel(self, why: str) -> DialError:
        proxy = self._through
        assert proxy is not None  # only a proxy can refuse a tunnel
        by = f"{proxy.host}:{proxy.port}"
        return DialError(f"the proxy {by} opened no tunnel to {self._there}: {why}")

    async def close(self) -> None:
        """Close every connection, busy or not."""
        self._closed = True
        if self._connector is not None:
            await self._connector.close()


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """Return why no connection came about; the library's own texts quote addresses and more."""
    cause = error.os_error
    return getattr(cause, "strerror", None) or type(cause).__name__


def _broken(error: Exception, when: str) -> UpstreamError:
    if isinstance(error, TimeoutError):
        return SilenceError("the upstream sent nothing for longer than allowed")
    return ResetError(f"the upstream closed the connection {when}")
