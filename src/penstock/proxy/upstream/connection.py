"""One connection to an upstream: bytes out, parsed answer in.

Ours, on httptools, because a relay pays for its client on every request: aiohttp's costs
about 80 us of CPU more than this one, four times what the scheduler does (DESIGN, measured
choices; docs/decisions). It does only what a relay needs: no redirects, no cookies, no
decompression, so that bodies stay byte-identical.
"""

import asyncio
import math
from collections import deque
from typing import Any, cast

import httptools

from penstock.proxy.upstream.errors import MalformedError, ResetError, SilenceError, UpstreamError

HIGH_WATER_BYTES = 262_144
"""Unread bytes above which we stop reading, so that a slow caller slows the upstream down."""

_NO_BODY = (204, 304)


class Connection(asyncio.Protocol):
    """Carries one exchange at a time. Owned by a `Pool`, read through `Answer`.

    `unsent` is True once a request could not be handed over whole: nobody has acted on it.
    """

    __slots__ = (
        "_chunks",
        "_complete",
        "_error",
        "_framed",
        "_headers",
        "_interim",
        "_keep_alive",
        "_loop",
        "_paused",
        "_pending",
        "_waiter",
        "_writable",
        "answered",
        "idle_since",
        "parser",
        "pool",
        "status",
        "transport",
        "unsent",
        "used",
        "wait_until",
    )  # fmt: skip

    def __init__(self, pool: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to a pool; the transport arrives with `connection_made`."""
        self.pool = pool
        self._loop = loop
        self.transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.idle_since = 0.0
        self.wait_until = math.inf
        self.used = 0
        self.unsent = False
        self._error: UpstreamError | None = None
        self._paused = False
        # One parser for all exchanges: it begins anew after each complete answer, and after an
        # incomplete one the connection is not used again.
        self.parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: deque[bytes] = deque()
        self._pending = 0
        self._complete = False
        self._framed = False
        self._interim = False
        self._keep_alive = False
        self.answered = False

    # what the pool and the answer call

    @property
    def usable(self) -> bool:
        """True while a further exchange may be put on this connection."""
        return (
            self._error is None and self.transport is not None and not self.transport.is_closing()
        )

    @property
    def finished_cleanly(self) -> bool:
        """True if the last exchange is complete and the upstream keeps the connection."""
        return self._complete and self._keep_alive and self.usable

    async def send(self, head: bytes, body: bytes) -> None:
        """Put a request on the wire and return once the transport has taken it."""
        if self.transport is None:
            self.unsent = True
            raise ResetError("the upstream closed the connection before it was used")
        if self.used:
            self._reset()
        self.used += 1
        if len(body) < HIGH_WATER_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        if self._writable is not None:
            await self._writable
            self.unsent = self.transport is None  # lost while the body still waited here

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Wait for the answer's status and headers (names in lower case).

        Raises:
            UpstreamError: the connection broke, fell silent or spoke no HTTP.

        """
        while not self.answered:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self.status, self._headers

    async def chunk(self) -> bytes:
        """Wait for body bytes, all that have arrived; b"" once the body is complete.

        Raises:
            UpstreamError: the connection broke, fell silent or spoke no HTTP.

        """
        while not self._chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        chunks = self._chunks
        if len(chunks) == 1:
            data = chunks.popleft()
        else:
            data = b"".join(chunks)
            chunks.clear()
        self._pending = 0
        if self._paused and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()
        return data

    @property
    def body_complete(self) -> bool:
        """True if nothing more will come and nothing is left to read."""
        return self._complete and not self._chunks

    def fail(self, error: UpstreamError) -> None:
        """Give up on this connection: whoever waits is told why."""
        if self._error is None and not self._complete:
            self._error = error
        self.abort()
        self._wake()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        if self.transport is not None:
            self.transport.abort()

    def silent_too_long(self) -> None:
        """Called by the pool's sweeper when `wait_until` has passed."""
        self.fail(SilenceError("the upstream sent nothing for longer than allowed"))

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        # uvloop's transports are no subclass of asyncio's, so this cannot be checked here.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; bytes that answer no request, or are no HTTP, end the connection."""
        if not self.used or self._complete:
            self.fail(MalformedError("the upstream sent bytes that answer no request"))
            self._keep_alive = False
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(MalformedError("the upstream tried to switch protocols"))
        except httptools.HttpParserError:
            self.fail(MalformedError("the upstream's answer is not HTTP"))
        self._wake()

    def eof_received(self) -> bool:
        """Take the end of the stream; it completes a body that has no other end."""
        if self.answered and not self._framed and not self._complete:
            self._complete = True
            self._keep_alive = False
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits, and leave the pool."""
        if exc is None:
            self.eof_received()
        if not self._complete and self._error is None:
            when = "within its answer" if self.answered else "before it answered"
            self._error = ResetError(f"the upstream closed the connection {when}")
        self.unsent = self.unsent or isinstance(exc, BrokenPipeError)
        self.transport = None
        self.resume_writing()
        self.pool.lost(self)
        self._wake()

    def pause_writing(self) -> None:
        """Hold the sender: the upstream takes the body slowly."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let the sender go on."""
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, its name in lower case."""
        name = name.lower()
        if name == b"content-length" or name == b"transfer-encoding":
            self._framed = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Publish status and headers, unless this is an interim (1xx) answer."""
        status = self.parser.get_status_code()
        if status < 200:
            self._interim = True
            return
        self.status = status
        self._framed = self._framed or status in _NO_BODY
        self._keep_alive = self._framed and self.parser.should_keep_alive()
        self.answered = True

    def on_body(self, body: bytes) -> None:
        """Queue body bytes; too many unread stop the reading."""
        self._chunks.append(body)
        self._pending += len(body)
        if self._pending > HIGH_WATER_BYTES and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        """Mark the end of the answer; an interim one only makes room for the real one."""
        if self._interim:
            self._interim = False
            self._headers = []
            self._framed = False
            return
        self._complete = True
