"""Runs the sidecar: two listeners on one loop, and an orderly end.

Upstreams' keys are read from their files and commands again before they expire.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping

from penstock.asgi import Application
from penstock.errors import ConfigError
from penstock.listener import Bounds, Listener, bind, connection_limit
from penstock.log.writer import DecisionLog
from penstock.private_file import FileInUse, NotPrivate, likely_cause
from penstock.proxy.admin import AdminApp
from penstock.proxy.app import App
from penstock.proxy.browsers import BrowserGuard, readable_by
from penstock.proxy.config import Loaded
from penstock.proxy.config.checks import is_loopback, source_of_upstream
from penstock.proxy.config.keyring import read_key
from penstock.proxy.config.listeners import Admin, Server
from penstock.proxy.config.models import Config
from penstock.proxy.observe.live import Outages, pipeline_of
from penstock.proxy.predicting import Attached
from penstock.proxy.preflight import unheld
from penstock.proxy.reload import Reloader
from penstock.proxy.sidecar import Sidecar
from penstock.proxy.upstream.client import UpstreamClient
from penstock.wire.secret import KeyProblem

LOOK_S = 1.0


class KeyRefresh:
    """Asks each file or command every `api_key_refresh_s`; a key that cannot be had stays."""

    def __init__(self, config: Config, links: Mapping[str, UpstreamClient]) -> None:
        """Look after these upstreams; the keys of the start are fresh."""
        self._links = links
        self._troubled: set[str] = set()
        self.take(config)

    def take(self, config: Config) -> None:
        """Look after this configuration's upstreams from now on."""
        sources = {
            upstream.name: (source, upstream.api_key_refresh_s)
            for index, upstream in enumerate(config.upstreams)
            if (source := source_of_upstream(upstream, index)) is not None and source.kind != "env"
        }
        self._sources = sources
        self._due_in_s = {name: every_s for name, (_, every_s) in sources.items()}

    async def keep_reading(self) -> None:
        """Read what is due, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for name, (source, every_s) in list(self._sources.items()):
                self._due_in_s[name] = self._due_in_s.get(name, every_s) - LOOK_S
                if self._due_in_s[name] > 0:
                    continue
                self._due_in_s[name] = every_s
                try:
                    key = await asyncio.to_thread(read_key, source, os.environ)
                except KeyProblem as problem:
                    if name not in self._troubled:
                        self._troubled.add(name)
                        logger.warning(
                            "%s %s (%s); upstream %s goes on with the key it had",
                            source.place,
                            problem.rule,
                            problem.likely,
                            name,
                        )
                    continue
                self._troubled.discard(name)
                if self._sources.get(name, (None,))[0] == source:  # no reload has come between
                    self._links[name].use_key(key)


logger = logging.getLogger("penstock.proxy")

POLL_S = 0.02
ADMIN_CONNECTIONS = 64
FEW_CONNECTIONS = 256
"""The usual limits on descriptors, from 1,024 on, leave more; a start that leaves fewer says so."""
FAREWELL_S = 5.0
"""How long complete replies may take to reach slow callers after the last slot is free."""
COLLECT_AFTER = 5_000
"""Objects after which the collector looks for cycles. With Python's 700 that took 8 % of a call's
time, for nothing: a call that has ended leaves no cycle that holds its body."""


class Running:
    """A sidecar that listens.

    Attributes:
        port: where callers connect.
        admin_port: where operators look; 0 if they cannot.
        reloader: reads the configuration again.

    """

    def __init__(self, loaded: Loaded, read: Callable[[], Loaded] | None = None) -> None:
        """Bind the listeners; `run` serves, and `read` reads the configuration again.

        Raises:
            ConfigError: an address cannot be bound.

        """
        # It warns of each fault of a form; whoever sent that hears of it anyway.
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        config = loaded.config
        self._grace_s = config.server.drain_grace_s
        self._pipeline = pipeline_of(config.otel)
        self.sidecar = Sidecar(loaded, pipeline=self._pipeline)
        driver, run = self.sidecar.driver, self.sidecar.factory.run
        self._log = _decision_log(loaded, run, driver.now())
        if self._log is not None:
            driver.observers.append(self._log)
            self.sidecar.log = self._log
        self._socket = _bind("server", config.server.host, config.server.port)
        self._admin_socket = (
            _bind("admin", config.admin.host, config.admin.port) if config.admin.enabled else None
        )
        self.port: int = self._socket.getsockname()[1]
        self.admin_port: int = self._admin_socket.getsockname()[1] if self._admin_socket else 0
        self._app = App(self.sidecar)
        app = readable_by(config.server.origins, self._app)
        self._guard = _guarded(app, "server", config.server)
        self._listener = Listener(
            self._guard, self._socket, _bounds(config.server, self.sidecar.room.unread_bytes)
        )
        self.reloader = Reloader(
            loaded, read, self._take, lambda: self.sidecar.snapshot().generation
        )
        self._admin = AdminApp(self.sidecar, loaded.admin_token, self.reloader)
        self._admin_guard = _guarded(self._admin, "admin", config.admin)
        self._key_refresh = KeyRefresh(config, self.sidecar.links)
        _warn_of_everywhere(config.server, keys=bool(config.keys))
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._predictor_table = config.predictor

    def _take(self, loaded: Loaded) -> None:
        """Let another configuration hold; nothing of it is refused once the scheduler took it."""
        self.sidecar.reconfigure(loaded)
        config = loaded.config
        self._grace_s = config.server.drain_grace_s
        self._guard.application = readable_by(config.server.origins, self._app)
        self._guard.allow(config.server.hosts, config.server.origins)
        self._admin_guard.allow(config.admin.hosts, config.admin.origins)
        self._admin.token = loaded.admin_token
        self._key_refresh.take(config)
        self.sidecar.shadow.take(config)
        logging.getLogger("penstock").setLevel(config.log.level.upper())

    def _signals(self) -> dict[int, Callable[[], None]]:
        """Return what each signal means; Windows has two of them."""
        meanings: dict[str, Callable[[], None]] = {
            "SIGTERM": self.stop,
            "SIGINT": self.stop,
            "SIGQUIT": self.stop,
            "SIGHUP": self._hang_up,
            "SIGUSR1": self._reopen_log,
        }
        return {
            getattr(signal, name): meaning
            for name, meaning in meanings.items()
            if hasattr(signal, name)
        }

    def _reopen_log(self) -> None:
        if self._log is not None:
            self._log.reopen()

    def _hang_up(self) -> None:
        self._reloading = asyncio.ensure_future(self.reloader.reload())

    @property
    def open_connections(self) -> int:
        """How many callers are connected."""
        return self._listener.open_connections

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
            signals: whether SIGTERM, SIGINT and SIGQUIT mean `stop`, SIGHUP a reload and SIGUSR1
                another file for the decision log; only the main thread may say yes.

        """
        loop = asyncio.get_running_loop()
        handled = self._signals() if signals else {}
        for signum, handler in handled.items():
            loop.add_signal_handler(signum, handler)
        listeners = [self._listener]
        if self._admin_socket is not None:
            bounds = Bounds(connections=connection_limit(ADMIN_CONNECTIONS))
            listeners.append(Listener(self._admin_guard, self._admin_socket, bounds))
        predictor = Attached(self.sidecar.predictor, self._predictor_table)
        outages = Outages(self.sidecar.snapshot)
        beside = [
            asyncio.ensure_future(each)
            for each in (
                predictor.keep_saving(),
                outages.keep_looking(),
                self._key_refresh.keep_reading(),
                self.sidecar.shadow.keep_asking(),
            )
        ]
        try:
            for listener in listeners:
                await listener.start()
            # What the start made stays: the collector need not look at it again and again. A last
            # look would take 3 % of the start, and finds ten objects.
            gc.freeze()
            gc.set_threshold(COLLECT_AFTER)
            gc.enable()
            started()
            await self._stop.wait()
            await self._drain()
            self.sidecar.dashboard.close()
            grace_s = 0.0 if self._force.is_set() else FAREWELL_S
            await asyncio.gather(*(listener.stop(grace_s) for listener in listeners))
        finally:
            for each in beside:
                each.cancel()
            await self.sidecar.close()
            predictor.close()
            if self._log is not None:
                self._log.close()
            if self._pipeline is not None:
                await asyncio.to_thread(self._pipeline.close)
            for signum in handled:
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
            logger.warning("drain over: %d in hand, cut off", self.sidecar.in_hand)
            self._force.set()


def _guarded(application: Application, table: str, own: Server | Admin) -> BrowserGuard:
    return BrowserGuard(application, table, own.host, own.hosts, own.origins)


def _warn_of_everywhere(server: Server, *, keys: bool) -> None:
    if not keys and not is_loopback(server.host):
        logger.warning(
            "server.host = %r: whoever reaches port %d calls without a key ([[keys]] asks for one)",
            server.host,
            server.port,
        )


def _bounds(server: Server, unread_room: Callable[[], int]) -> Bounds:
    connections = connection_limit(server.max_connections)
    if connections < min(server.max_connections, FEW_CONNECTIONS):
        logger.warning(
            "server.max_connections = %d, but this process may open descriptors for %d: the rest "
            "is told 503 (raise the limit: `ulimit -n`, LimitNOFILE, --ulimit)",
            server.max_connections,
            connections,
        )
    return Bounds(
        connections=connections,
        head_bytes=server.max_head_bytes,
        head_timeout_s=server.head_timeout_s,
        keep_alive_s=server.keep_alive_s,
        unread_room=unread_room,
        unread_timeout_s=server.unread_timeout_s,
    )


def _decision_log(loaded: Loaded, run: str, now: float) -> DecisionLog | None:
    path = loaded.config.log.decisions_path
    if path is None:
        return None
    try:
        return DecisionLog(path, run=run, now=now, settings=loaded.settings)
    except (FileInUse, NotPrivate) as error:
        raise ConfigError(f"log.decisions_path = {path!r}: {error}") from None
    except OSError as error:
        raise ConfigError(
            f"log.decisions_path = {path!r}: cannot be written: {error.strerror} "
            f"({likely_cause(error)})"
        ) from None


def _bind(table: str, host: str, port: int) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as error:
        raise ConfigError(str(unheld(table, host, port, error))) from None
