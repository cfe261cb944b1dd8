"""Connections on which an answer is heard while a body is sent, and no wait for one is endless.

httpcore and httpcore2 read nothing while they send: where a provider refuses a large body and
resets, what it said is lost to coroutines. They also wait anew after each interim answer (1xx), for
ever. And what came in the same breath behind an answer they take for the next call's. Both let a
pool have another network backend; ours wraps the pool's own. httpx and httpx2 have no public way to
hand one through (their transports make the pool), so it is put where a test of the private names
says that it is; where it is not, twelve tests of heads fail.
"""

import asyncio
import re
import sys
import time
from typing import Any

from penstock.wire.framing import LastChunk, body_left

LARGE_BYTES = 1 << 16
"""A body above this may not fit into the socket's buffer, so that sending it takes a while."""
INTERIM_BYTES = 1 << 16
"""How much of interim answers may come before the answer's own head, as in the sidecar."""
_READ_BYTES = 1 << 16
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n")
_ITS_BEGINNING = re.compile(rb"(?:HTTP/1\.[01] 1(?!01)|HTTP/1\.[01]? ?\Z|HTTP/?1?\Z|H?T?T?P?\Z)")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,19})\r\n", re.IGNORECASE)
_HTTP_1 = b"HTTP/1."
_REFUSAL = re.compile(rb"HTTP/1\.[01] [45]\d\d")


def watch(transport: Any) -> None:
    """Let the connections that a library's own transport will make be ours."""
    pool = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if pool is None or backend is None or isinstance(backend, _Backend):
        return
    errors = sys.modules[type(pool).__module__.partition(".")[0]]
    kind = _AsyncBackend if hasattr(pool, "aclose") else _Backend
    pool._network_backend = kind(backend, errors)  # noqa: SLF001 - tests hold it


class _Backend:
    """Makes connections for threads."""

    def __init__(self, inner: Any, errors: Any) -> None:
        self._inner, self._errors = inner, errors
        self.sleep = inner.sleep

    def connect_tcp(self, *args: Any, **options: Any) -> Any:
        return _Stream(self._inner.connect_tcp(*args, **options), self._errors)

    def connect_unix_socket(self, *args: Any, **options: Any) -> Any:
        return _Stream(self._inner.connect_unix_socket(*args, **options), self._errors)


class _AsyncBackend(_Backend):
    """Makes connections for coroutines."""

    async def connect_tcp(self, *args: Any, **options: Any) -> Any:
        return _AsyncStream(await self._inner.connect_tcp(*args, **options), self._errors)

    async def connect_unix_socket(self, *args: Any, **options: Any) -> Any:
        return _AsyncStream(await self._inner.connect_unix_socket(*args, **options), self._errors)


class _Watched:
    """A connection's stream, and how far the answer to what was sent last has come."""

    def __init__(self, inner: Any, errors: Any) -> None:
        self._inner, self._errors = inner, errors
        self._kept_back = b""  # what has come behind what may be the answer's end
        self._sent()

    def get_extra_info(self, info: str) -> Any:
        """Return the inner stream's; the libraries reuse none that is readable while it idles."""
        if info == "is_readable" and self._kept_back:
            return True
        return self._inner.get_extra_info(info)

    def _sent(self) -> None:
        """Await the head of an answer."""
        self._awaits_head = True
        self._begun: bytes | None = b""  # the head, until it is whole
        self._left_bytes: int | None = None  # of the body, where its length is stated
        self._last_chunk: LastChunk | None = None  # where it is not
        self._interim_bytes = 0
        self._until: float | None = None

    def _left_s(self, timeout: float | None) -> float | None:
        """Return how long the next piece may take: until its head, an answer has one such time."""
        if timeout is None or not self._awaits_head:
            return timeout
        now = time.monotonic()
        if self._until is None:
            self._until = now + timeout
        if now >= self._until:
            raise self._errors.ReadTimeout("nothing but interim answers came in time")
        return self._until - now

    def _came(self, data: bytes) -> bytes:
        """Take note of what came; return what may be of the answer, and keep back the rest."""
        if self._begun is not None:
            if (begun := self._head_with(data)) is None:
                return data
            self._left_bytes = body_left(begun)
            if self._left_bytes is None and begun.startswith(_HTTP_1):
                self._last_chunk = LastChunk()
        elif self._left_bytes is not None:
            self._left_bytes -= len(data)
        end = len(data)
        if self._left_bytes is not None and self._left_bytes < 0:
            end, self._left_bytes = end + self._left_bytes, None
        elif self._last_chunk is not None:
            end = self._last_chunk.end_in(data)
        self._kept_back = data[end:]
        return data[:end]

    def _head_with(self, data: bytes) -> bytes | None:
        """Return the answer's own head and what came with it, once it is whole."""
        begun = (self._begun or b"") + data
        while interim := _INTERIM.match(begun):
            self._interim_bytes += interim.end()
            begun = begun[interim.end() :]
        self._begun = begun
        if not _ITS_BEGINNING.match(begun):
            self._awaits_head = False
        elif self._interim_bytes + len(begun) > INTERIM_BYTES:
            raise self._errors.RemoteProtocolError("interim answers without end")
        if self._awaits_head or (
            begun.startswith(_HTTP_1) and b"\r\n\r\n" not in begun and len(begun) < INTERIM_BYTES
        ):
            return None
        self._begun = None
        return begun

    def _held(self) -> bytes:
        """Return what was kept back, though the answer goes on."""
        data, self._kept_back = self._kept_back, b""
        return data


class _Stream(_Watched):
    """For threads."""

    def __init__(self, inner: Any, errors: Any) -> None:
        super().__init__(inner, errors)
        self.close = inner.close

    def read(self, max_bytes: int, timeout: float | None = None) -> Any:
        return self._came(self._held() or self._inner.read(max_bytes, self._left_s(timeout)))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._sent()
        self._inner.write(buffer, timeout)

    def start_tls(self, *args: Any, **options: Any) -> Any:
        return _Stream(self._inner.start_tls(*args, **options), self._errors)


class _AsyncStream(_Watched):
    """For coroutines."""

    def __init__(self, inner: Any, errors: Any) -> None:
        super().__init__(inner, errors)
        self._reading: asyncio.Task[bytes] | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - theirs
        if held := self._held():
            return self._came(held)
        timeout = self._left_s(timeout)
        reading, self._reading = self._reading, None
        if reading is None:
            data = await self._inner.read(max_bytes, timeout)
        else:  # it began while the request was sent
            await asyncio.wait((reading,), timeout=timeout)
            if not reading.done():
                await _end(reading)
                raise self._errors.ReadTimeout("nothing came in time")
            data = reading.result()
        return self._came(data)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - theirs
        self._sent()
        if len(buffer) <= LARGE_BYTES:
            await self._inner.write(buffer, timeout)
            length = _LENGTH.search(buffer)
            if length is not None and int(length[1]) > LARGE_BYTES:
                self._begin_reading()
            return
        reading = self._begin_reading()
        await asyncio.sleep(0)  # what is there is taken in now: a write that fails drops it
        writing = asyncio.create_task(self._inner.write(buffer, timeout))
        try:
            await asyncio.wait((writing, reading), return_when=asyncio.FIRST_COMPLETED)
            if not writing.done() and _refuses(reading):
                raise self._errors.WriteError("the answer came before the request was sent")
            await writing
        finally:
            await _end(writing)
            if reading.done() and reading.exception() is not None:
                self._reading = None  # what is wrong is found again

    def _begin_reading(self) -> "asyncio.Task[bytes]":
        if self._reading is None:
            self._reading = asyncio.create_task(self._inner.read(_READ_BYTES))
        return self._reading

    async def start_tls(self, *args: Any, **options: Any) -> Any:
        return _AsyncStream(await self._inner.start_tls(*args, **options), self._errors)

    async def aclose(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            await _end(reading)
        await self._inner.aclose()


def _refuses(reading: "asyncio.Task[bytes]") -> bool:
    """Return whether an error has come: nobody reads what is still to be sent."""
    failed = reading.exception()
    return failed is None and _REFUSAL.match(reading.result()) is not None


async def _end(task: "asyncio.Task[Any]") -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()
