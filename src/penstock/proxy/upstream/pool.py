"""Connections to one upstream, kept warm. Their number is the scheduler's business, not ours."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from penstock.proxy.upstream.address import Address
from penstock.proxy.upstream.connection import Connection
from penstock.proxy.upstream.dialling import dial
from penstock.proxy.upstream.errors import DialError, ResetError
from penstock.proxy.upstream.forward_proxy import ForwardProxy

SWEEP_S = 0.25
"""How often silence is looked for: one look over all connections is cheaper than a timer each."""

LONG_IDLE_S, AT_ONCE_S = 1.0, 0.01
"""Where a request and an idle upstream's goodbye cross on the way, it looks as if the upstream had
read and closed. Servers give up on idle connections after seconds, and the goodbye comes at once;
what has read a request and breaks takes longer, or was busy a moment ago."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for an upstream, in seconds.

    Attributes:
        connect_s: for a connection, TLS included.
        first_byte_s: from the request's last byte to the answer's headers.
        between_bytes_s: between two pieces of the answer.
        idle_s: how long an unused connection is kept; below what servers usually keep.

    """

    connect_s: float = 10.0
    first_byte_s: float = 600.0
    between_bytes_s: float = 300.0
    idle_s: float = 30.0


class Answer:
    """An upstream's answer while it arrives. `close` it whatever happens."""

    __slots__ = ("_between_s", "_connection", "_pool", "headers", "status")

    def __init__(
        self,
        pool: "Pool",
        connection: Connection,
        status: int,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        """Hold the connection until closed."""
        self._pool = pool
        self._connection: Connection | None = connection
        self._between_s = pool.patience.between_bytes_s
        self.status = status
        self.headers = headers

    async def chunk(self) -> bytes:
        """Wait for body bytes; b"" at the end.

        Raises:
            UpstreamError: the connection broke, fell silent or spoke no HTTP.

        """
        connection = self._connection
        if connection is None:
            return b""
        connection.wait_until = self._pool.now() + self._between_s
        data = await connection.chunk()
        connection.wait_until = math.inf
        return data

    @property
    def complete(self) -> bool:
        """True if the whole body has been read."""
        return self._connection is None or self._connection.body_complete

    def close(self) -> None:
        """Give the connection back if the answer is complete, else close it. Twice is once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)


class Pool:
    """Connections to one upstream."""

    def __init__(
        self,
        address: Address,
        patience: Patience | None = None,
        *,
        through: ForwardProxy | None = None,
    ) -> None:
        """Dial nothing yet; `through` is the proxy to go through."""
        self.address = address
        self.through = through
        self.patience = patience or Patience()
        self._tls = address.tls_context()
        self._idle: list[Connection] = []
        self._all: dict[Connection, None] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.now: Callable[[], float] = lambda: 0.0

    @property
    def open_connections(self) -> int:
        """How many connections are open, idle ones included."""
        return len(self._all)

    async def send(self, head: bytes, body: bytes) -> Answer:
        """Send a request and wait for the answer's headers.

        A warm connection may turn out to have been closed by the upstream while it idled. Where
        that is sure, or likely (see `LONG_IDLE_S`), the request goes out once more on a fresh
        one. Otherwise the upstream may have acted on it, and whether it goes out again is the
        scheduler's business: it counts attempts, and has a budget for them.

        Raises:
            DialError: no connection came about.
            UpstreamError: the connection broke, fell silent or spoke no HTTP.

        """
        connection = self._warm()
        if connection is not None:
            began = self.now()
            idle_s = began - connection.idle_since
            try:
                return await self._exchange(connection, head, body)
            except ResetError:
                at_once = self.now() - began <= AT_ONCE_S
                crossed = idle_s >= LONG_IDLE_S and at_once
                if connection.answered or not (connection.unsent or crossed):
                    raise
        return await self._exchange(await self._dial(), head, body)

    async def _exchange(self, connection: Connection, head: bytes, body: bytes) -> Answer:
        try:
            connection.wait_until = self.now() + self.patience.first_byte_s
            await connection.send(head, body)
            status, headers = await connection.head()
        except BaseException:
            self._drop(connection)
            raise
        connection.wait_until = math.inf
        return Answer(self, connection, status, headers)

    def _warm(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _dial(self) -> Connection:
        if self._closed:
            raise DialError("the pool is closed: was a request sent after the drain?")
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
            self.now = loop.time
        self._watch()
        try:
            async with asyncio.timeout(self.patience.connect_s):
                connection = await dial(
                    loop, lambda: Connection(self, loop), self.address, self._tls, self.through
                )
        except TimeoutError:
            raise DialError(
                f"no connection to {self._where()} within {self.patience.connect_s:g} s"
            ) from None
        except (OSError, UnicodeError) as error:  # a name that cannot be encoded is no OSError
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise DialError(f"no connection to {self._where()}: {reason}") from None
        self._all[connection] = None
        return connection

    def _where(self) -> str:
        there = f"{self.address.host}:{self.address.port}"
        proxy = self.through
        return there if proxy is None else f"{there} through the proxy {proxy.host}:{proxy.port}"

    def give_back(self, connection: Connection) -> None:
        """Keep the connection for the next request if its exchange ended cleanly."""
        if connection.finished_cleanly and not self._closed:
            connection.idle_since = self.now()
            connection.wait_until = math.inf
            self._idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._all.pop(connection, None)
        connection.abort()

    def lost(self, connection: Connection) -> None:
        """Forget a connection that has closed by itself."""
        self._all.pop(connection, None)

    def _watch(self) -> None:
        if self._sweeper is None and self._loop is not None and not self._closed:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self.now()
        for connection in [c for c in self._all if c.wait_until <= now]:
            connection.silent_too_long()
        stale = now - self.patience.idle_s
        for connection in [c for c in self._idle if c.idle_since <= stale]:
            self._drop(connection)
        self._idle = [c for c in self._idle if c.usable]
        if self._all:
            self._watch()

    def close(self) -> None:
        """Close every connection, busy or not."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._all):
            self._drop(connection)
        self._idle.clear()
