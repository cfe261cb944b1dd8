"""The mock on a socket: in a thread of this process, or as the process itself."""

import asyncio
import http.client
import signal
import threading
from collections.abc import Callable
from typing import Any, Self

import orjson

from penstock.listener import Bounds, Listener, bind
from penstock.sim.mock.app import MockApp
from penstock.sim.mock.passage import STATS_PATH
from penstock.sim.mock.script import MockSettings

_START_LIMIT_S = 30.0
_GRACE_S = 1.0
_BOUNDS = Bounds(keep_alive_s=120.0)
"""Longer than any pool in front keeps its idle connections, so nobody dials into a close."""


async def serve(
    app: MockApp,
    host: str,
    port: int,
    *,
    started: Callable[[int], None],
    stop: asyncio.Event,
    grace_s: float = _GRACE_S,
) -> None:
    """Serve until `stop` is set.

    Args:
        app: answers.
        host: to listen on.
        port: likewise; 0 takes any free one.
        started: told the port when calls are answered.
        stop: ends it.
        grace_s: how long what is being answered may take to end.

    Raises:
        OSError: the address cannot be had.

    """
    sock = bind(host, port)
    listener = Listener(app, sock, _BOUNDS)
    await listener.start()
    started(sock.getsockname()[1])
    try:
        await stop.wait()
    finally:
        await listener.stop(grace_s)


async def serve_until_signalled(
    app: MockApp, host: str, port: int, *, started: Callable[[int], None]
) -> None:
    """Serve until SIGINT or SIGTERM, which is how a mock is meant to end.

    Raises:
        OSError: the address cannot be had.

    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    await serve(app, host, port, started=started, stop=stop)


class MockServer:
    """A mock in a thread with its own event loop; `with` or `async with` starts and stops it.

    Attributes:
        url: `http://127.0.0.1:PORT`, once started. OpenAI clients take `url + "/v1"`.

    """

    def __init__(
        self, settings: MockSettings | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._app = MockApp(settings or MockSettings())
        self._host = host
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._up = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.url = ""

    @property
    def port(self) -> int:
        """The port that it listens on, once started."""
        return self._port

    def start(self) -> Self:
        """Start serving and return when calls are answered.

        Raises:
            OSError: the address cannot be had.
            RuntimeError: the server did not come up.

        """
        self._thread = threading.Thread(target=self._run, name="penstock-mock", daemon=True)
        self._thread.start()
        up = self._up.wait(_START_LIMIT_S)
        if isinstance(self._failure, OSError):
            raise self._failure
        if not up or self._failure is not None:
            raise RuntimeError(f"the mock did not start: {self._failure!r}")
        self.url = f"http://{self._host}:{self._port}"
        return self

    def stop(self) -> None:
        """Stop serving; open connections are closed."""
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_LIMIT_S)
        self._loop = self._thread = None

    def stats(self) -> dict[str, Any]:
        """Return what `GET /mock/stats` answers."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=10)
        try:
            connection.request("GET", STATS_PATH)
            document: dict[str, Any] = orjson.loads(connection.getresponse().read())
        finally:
            connection.close()
        return document

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_error: object) -> None:
        await asyncio.to_thread(self.stop)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed to the starting thread
            self._failure = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await serve(
            self._app,
            self._host,
            self._port,
            started=self._started,
            stop=self._stop,
            grace_s=0.0,
        )

    def _started(self, port: int) -> None:
        self._port = port
        self._up.set()
