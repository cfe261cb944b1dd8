"""Reads a body piece by piece, each within a time, and loses none that comes later.

Neither library lets a read be given up and taken up again: it closes the connection. So what is
waited for goes on beside its waiter, a coroutine's in a task and a thread's in a thread, and is the
first that the reader gets.
"""

import asyncio
import math
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from typing import Any


class Ahead:
    """Reads for coroutines.

    Attributes:
        late: whether what was asked for last did not come in time.

    """

    __slots__ = ("_chunks", "_pending", "late")

    def __init__(self, response: Any) -> None:
        """Begin at the beginning."""
        self.late = False
        self._chunks = aiter(response.stream)
        self._pending: asyncio.Task[bytes | None] | None = None

    async def next(self, within_s: float = math.inf) -> bytes | None:
        """Return the next piece; b"" if none comes within the time, None at the end."""
        pending = self._pending
        if within_s == math.inf:
            self._pending = None
            return await self._read() if pending is None else await pending
        if pending is None:
            pending = self._pending = asyncio.create_task(self._read())
            pending.add_done_callback(_hear)
        await asyncio.wait((pending,), timeout=within_s)
        self.late = not pending.done()
        if self.late:
            return b""
        self._pending = None
        return pending.result()

    async def _read(self) -> bytes | None:
        return await anext(self._chunks, None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the rest."""
        while (piece := await self.next()) is not None:
            yield piece

    async def leave(self) -> None:
        """Wait for nothing any more."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
            await asyncio.wait((pending,))


def _hear(task: "asyncio.Task[bytes | None]") -> None:
    """Take note of an error, for whoever drops a body unread."""
    if not task.cancelled():
        task.exception()


class SyncAhead:
    """Reads for threads.

    Attributes:
        late: whether what was asked for last did not come in time.

    """

    __slots__ = ("_chunks", "_pending", "_response", "late")

    def __init__(self, response: Any) -> None:
        """Begin at the beginning."""
        self.late = False
        self._response = response
        self._chunks = iter(response.stream)
        self._pending: Future[bytes | None] | None = None

    def next(self, within_s: float = math.inf) -> bytes | None:
        """Return the next piece; b"" if none comes within the time, None at the end."""
        pending = self._pending
        if within_s == math.inf:
            self._pending = None
            return next(self._chunks, None) if pending is None else pending.result()
        if pending is None:
            pending = self._pending = Future()
            run = copy_context().run
            threading.Thread(target=run, args=(self._read, pending), daemon=True).start()
        with suppress(TimeoutError):
            pending.exception(within_s)
        self.late = not pending.done()
        if self.late:
            return b""
        self._pending = None
        return pending.result()

    def _read(self, into: "Future[bytes | None]") -> None:
        try:
            into.set_result(next(self._chunks, None))
        except BaseException as error:  # noqa: BLE001 - it is raised where the piece is taken
            into.set_exception(error)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the rest."""
        while (piece := self.next()) is not None:
            yield piece

    def leave(self) -> None:
        """Wait for nothing any more: what is being read comes to its end at once."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        network = self._response.extensions.get("network_stream")
        sock = None if network is None else network.get_extra_info("socket")
        if isinstance(sock, socket.socket):
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
