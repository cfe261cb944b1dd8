"""A server on a loopback port that leaves no connection's task behind."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

HUNG_UP = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LINE_BYTES = 1 << 20


@asynccontextmanager
async def listening(serve: Serve, *, tls: SSLContext | None = None) -> AsyncIterator[int]:
    """Serve each connection in the running loop, close it when it is served, and yield the port."""
    serving: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            with suppress(*HUNG_UP, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            serving.discard(task)
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, limit=LINE_BYTES, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@contextmanager
def listening_apart(serve: Serve) -> Iterator[int]:
    """Serve each connection in a loop and a thread of the server's own; yield the port."""
    told: queue.Queue[tuple[int, Callable[[], object]]] = queue.Queue()

    async def until_over() -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        async with listening(serve) as port:
            told.put((port, lambda: loop.call_soon_threadsafe(over.set)))
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(until_over(),), daemon=True)
    thread.start()
    port, end = told.get(timeout=20)
    try:
        yield port
    finally:
        end()
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def serving_http(handler: type[BaseHTTPRequestHandler], **options: Any) -> Iterator[int]:
    """Serve HTTP in threads by the handler, which is given the options; yield the port."""
    quiet = type(handler.__name__, (handler,), {"log_message": lambda *_words: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, **options)) as server:
        server.handle_error = lambda *_who: None  # type: ignore[method-assign]  # it hung up
        # It ends at the next look for that: by default half a second later.
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(20)
