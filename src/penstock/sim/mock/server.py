"""The mock on a socket: in a thread of this process, or as the process itself."""

import asyncio
import http.client
import socket
import threading
from types import TracebackType
from typing import Any, Self

import orjson
import uvicorn

from penstock.sim.mock.app import MockApp
from penstock.sim.mock.settings import MockSettings

_START_LIMIT_S = 30.0


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one.

    Raises:
        OSError: the address cannot be had.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off on what is accepted. Without
    # it, every reply after a connection's first came 40 ms late (delayed acknowledgements).
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(2048)
    sock.set_inheritable(True)
    return sock


def uvicorn_config(app: MockApp) -> uvicorn.Config:
    """Return how uvicorn serves the mock: no logs, no proxy headers, connections kept long."""
    return uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        # Longer than any pool in front keeps its idle connections, so nobody dials into a close.
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
        backlog=2048,
    )


async def serve(app: MockApp, sock: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    await uvicorn.Server(uvicorn_config(app)).serve(sockets=[sock])


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
        self._server: uvicorn.Server | None = None
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
        sock = listen(self._host, self._port)
        self._port = sock.getsockname()[1]
        self.url = f"http://{self._host}:{self._port}"
        self._server = uvicorn.Server(uvicorn_config(self._app))
        self._thread = threading.Thread(
            target=self._run, args=(self._server, sock), name="penstock-mock", daemon=True
        )
        self._thread.start()
        self._wait_until_up(self._server, self._thread)
        return self

    def stop(self) -> None:
        """Stop serving; open connections are closed."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(_START_LIMIT_S)
        self._server = self._thread = None

    def stats(self) -> dict[str, Any]:
        """Return what `GET /mock/stats` answers."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=10)
        try:
            connection.request("GET", "/mock/stats")
            document: dict[str, Any] = orjson.loads(connection.getresponse().read())
        finally:
            connection.close()
        return document

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _run(self, server: uvicorn.Server, sock: socket.socket) -> None:
        try:
            server.run(sockets=[sock])
        except BaseException as error:  # noqa: BLE001 - handed to the starting thread
            self._failure = error
        finally:
            sock.close()

    def _wait_until_up(self, server: uvicorn.Server, thread: threading.Thread) -> None:
        waiting = threading.Event()
        waited_s = 0.0
        while not server.started:
            if not thread.is_alive() or waited_s > _START_LIMIT_S:
                raise RuntimeError(f"the mock did not start: {self._failure!r}")
            waiting.wait(0.005)
            waited_s += 0.005
