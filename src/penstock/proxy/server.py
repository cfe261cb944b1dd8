"""Runs the sidecar: two listeners on one loop, and an orderly end."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn

from penstock.errors import ConfigError
from penstock.log.writer import DecisionLog
from penstock.proxy.admin import AdminApp
from penstock.proxy.app import App
from penstock.proxy.config import Loaded
from penstock.proxy.predicting import attach_predictor
from penstock.proxy.sidecar import Sidecar

logger = logging.getLogger("penstock.proxy")

BACKLOG = 2048
POLL_S = 0.02
FAREWELL_S = 5.0
"""How long complete replies may take to reach slow callers after the last slot is free."""


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to us: a drain must come before its exit."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Running:
    """A sidecar that listens.

    Attributes:
        port: where callers connect.
        admin_port: where operators look; 0 if they cannot.

    """

    def __init__(self, loaded: Loaded) -> None:
        """Bind the listeners; `run` serves.

        Raises:
            ConfigError: an address cannot be bound.

        """
        config = loaded.config
        self._grace_s = config.server.drain_grace_s
        self.sidecar = Sidecar(loaded)
        driver, run = self.sidecar.driver, self.sidecar.factory.run
        self._recent = self.sidecar.recent
        self._log = _decision_log(loaded, run, driver.now())
        if self._log is not None:
            driver.observers.append(self._log)
        self._socket = _bind("server", config.server.host, config.server.port)
        self._admin_socket = (
            _bind("admin", config.admin.host, config.admin.port) if config.admin.enabled else None
        )
        self.port: int = self._socket.getsockname()[1]
        self.admin_port: int = self._admin_socket.getsockname()[1] if self._admin_socket else 0
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._predictor_table = config.predictor

    def stop(self) -> None:
        """Begin the drain; the second call cuts it short."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    async def run(
        self, *, started: Callable[[], None] = lambda: None, signals: bool = True
    ) -> None:
        """Serve until `stop`, then drain.

        Args:
            started: called once callers are answered.
            signals: whether SIGTERM and SIGINT mean `stop`; only the main thread may say yes.

        """
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT) if signals else ():
            loop.add_signal_handler(signum, self.stop)
        main = _server(App(self.sidecar))
        servers = [(main, self._socket)]
        if self._admin_socket is not None:
            servers.append((_server(AdminApp(self.sidecar, self._recent)), self._admin_socket))
        tasks = [asyncio.ensure_future(server._serve([sock])) for server, sock in servers]  # noqa: SLF001 - `serve` would take the signals
        predictor = attach_predictor(self.sidecar.predictor, self._predictor_table)
        saving = asyncio.ensure_future(predictor.keep_saving())
        try:
            for server, _ in servers:
                await server.ready.wait()
            # What the start made stays: the collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            started()
            await self._stop.wait()
            await self._drain()
            main.config.timeout_graceful_shutdown = 0 if self._force.is_set() else int(FAREWELL_S)
            for server, _ in servers:
                server.should_exit = True
            await asyncio.gather(*tasks)
        finally:
            saving.cancel()
            await self.sidecar.close()
            predictor.close()
            if self._log is not None:
                self._log.close()
            for signum in (signal.SIGTERM, signal.SIGINT) if signals else ():
                loop.remove_signal_handler(signum)

    async def _drain(self) -> None:
        flying = self.sidecar.in_hand
        self.sidecar.drain()
        logger.info("draining: %d in hand, grace %g s", flying, self._grace_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                while self.sidecar.in_hand and not self._force.is_set():  # noqa: ASYNC110 - an event would cost every request
                    await asyncio.sleep(POLL_S)
        if self.sidecar.in_hand:
            logger.warning("drain over: %d requests are cut off", self.sidecar.in_hand)
            self._force.set()


def _decision_log(loaded: Loaded, run: str, now: float) -> DecisionLog | None:
    path = loaded.config.log.decisions_path
    if path is None:
        return None
    try:
        return DecisionLog(path, run=run, now=now, settings=loaded.settings)
    except OSError as error:
        raise ConfigError(
            f"log.decisions_path = {path!r}: cannot be written ({error.strerror}): "
            "does its folder belong to somebody else?"
        ) from None


def _server(app: Callable[..., Awaitable[None]]) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(FAREWELL_S),
        )
    )


def _bind(table: str, host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"{table}.port = {port}: cannot listen on {host}:{port} ({error.strerror or error}): "
            "does another penstock run already?"
        ) from None
    sock.setblocking(False)
    return sock
