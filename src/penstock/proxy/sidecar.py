"""Everything that one sidecar holds, wired from a configuration, and how many bytes of bodies."""

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.calls.factory import RequestFactory
from penstock.core.events import Reconfigured
from penstock.core.snapshot import Snapshot
from penstock.dashboard.app import DashboardApp
from penstock.dashboard.state import DashboardState
from penstock.errors import ProtocolError
from penstock.log.writer import DecisionLog
from penstock.policies.registry import build_scheduler
from penstock.proxy.bodies import BodyRoom
from penstock.proxy.config import Loaded
from penstock.proxy.config.forward_proxy import ForwardProxy
from penstock.proxy.config.models import UpstreamTable
from penstock.proxy.config.to_core import default_class_of, table_of
from penstock.proxy.holders import Holders
from penstock.proxy.observe.live import LiveSource, Recent
from penstock.proxy.observe.metrics import Metrics
from penstock.proxy.replays import Replays
from penstock.proxy.request_reader import Callers, ReadingRules, RequestReader
from penstock.proxy.routing import Routing
from penstock.proxy.shadow import Shadow
from penstock.proxy.upstream.client import UpstreamClient
from penstock.runtime.driver import Driver, Observer
from penstock.runtime.gate import Gate
from penstock.runtime.guarded import Guard
from penstock.runtime.prediction import LearnedPredictor
from penstock.runtime.telemetry import new_run

if TYPE_CHECKING:
    from penstock.predict import GuardedPredictor
    from penstock.proxy.observe.exposition import Gauge
    from penstock.telemetry.pipeline import Pipeline


logger = logging.getLogger("penstock.proxy")

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
SHARE = 3
"""Of what is left: a body that is read takes as much again and more, and so does the predictor."""


def limit_files(own: Path = OWN_CGROUPS, mounted: Path = CGROUPS) -> Iterator[Path]:
    """Yield the files that may limit this process: of its control group and of those above it.

    A service's group is one below the root; to a container its own looks like the root.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            root, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):  # version 1
            root, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        place = root / group.lstrip("/")
        yield from (each / name for each in (place, *place.parents) if each.is_relative_to(root))


def body_room(wanted_bytes: int, limits: Iterable[Path] | None = None) -> int:
    """Return how many bytes of bodies may be held: at most `wanted_bytes`.

    In a container or a service with a limit, beyond which the system ends the process, it is a
    third of what the process does not have yet.
    """
    left = _left(limit_files() if limits is None else limits)
    least_bytes = min((each // SHARE for each in left), default=wanted_bytes)
    if least_bytes >= wanted_bytes:
        return wanted_bytes
    logger.warning(
        "server.max_held_bytes = %d: %d are held at most, a third of what the memory limit of "
        "this container or service leaves",
        wanted_bytes,
        least_bytes,
    )
    return least_bytes


def _left(limits: Iterable[Path]) -> Iterator[int]:
    """Yield how many bytes each limit leaves; nothing where none is known."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (ModuleNotFoundError, OSError):
        return
    for path in limits:
        try:
            yield max(0, int(path.read_text()) - pages * resource.getpagesize())
        except (OSError, ValueError):  # "max" is no limit
            continue


_FIGURES_BY_ROUTE = {
    "bucket_accuracy": "Share in the predicted bucket.",
    "pair_ranking": "Share of pairs put in the right order.",
    "p90_coverage": "Share of replies within the p90.",
    "fallback_rate": "Share of estimates from the table.",
}
"""Of the predictor's `RouteFigures`, with their help."""


class Sidecar:
    """The parts that requests share.

    Attributes:
        gate: where requests wait for their slot.
        links: the upstreams, by name.
        reader: checks requests.
        replays: answers that are kept for their Idempotency-Key.
        holders: which upstream has what an id names.
        predictor: predicts output tokens.
        metrics: what is counted.
        lately: what was decided in the last hour, counted.
        shadow: what other configurations would have done.
        dashboard: the page for operators.
        log: the decision log, for its figures; None if there is none.
        telemetry: OpenTelemetry's spans and metrics; None if nobody wants them.
        pipeline: exports them; None likewise.
        fallbacks: where requests may go that their own model cannot serve.
        relayed: how many are relayed beside the scheduler now.
        draining: True from `drain` on.

    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        observers: Iterable[Observer] = (),
        pipeline: "Pipeline | None" = None,
    ) -> None:
        """Wire the parts; nothing is dialled and nothing listens yet."""
        config = loaded.config
        self.pipeline = pipeline
        self.telemetry = None if pipeline is None else pipeline.telemetry
        self.metrics = Metrics()
        self.guard = Guard(self.metrics.reading_faults.add)
        self._max_held_bytes = config.server.max_held_bytes
        self.room = BodyRoom(body_room(self._max_held_bytes))
        self.links: dict[str, UpstreamClient] = {}
        self._tables: dict[str, tuple[UpstreamTable, ForwardProxy | None]] = {}
        self._leaving: dict[asyncio.Task[None], UpstreamClient] = {}
        self._take_links(loaded)
        scheduler = build_scheduler(loaded.settings)
        self.factory = RequestFactory(loaded.settings.classes, run=new_run(), tracer=self.telemetry)
        self.driver = Driver(scheduler, observers=observers, guard=self.guard)
        now, wall = self.driver.now(), time.time()
        self.recent = Recent(
            config.admin.decisions_kept if config.admin.enabled else 0,
            self.metrics,
            run=self.factory.run,
            started_at=now,
            wall_now=wall,
        )
        self.driver.observers.append(self.recent)
        self.lately = DashboardState(self.factory.run, now=now, wall=wall)
        self.driver.observers.append(self.lately)
        if self.telemetry is not None:
            self.driver.observers.append(self.telemetry)
        self.shadow = Shadow(config)
        self.dashboard = DashboardApp(
            LiveSource(self.lately, self.driver, self.recent, self.shadow, self.metrics)
        )
        self.gate = Gate(self.driver, self.factory)
        self.predictor = LearnedPredictor(table=table_of(config))
        self.holders = Holders(config.server.ids_kept, config.server.ids_kept_s)
        self.replays = Replays(
            config.server.idempotency_s, config.server.idempotency_bytes, self.driver.now
        )
        self.reader = RequestReader(
            self._reading(loaded),
            self.predictor,
            classes=self.factory.classes,
            holders=self.holders,
            now=self.driver.now,
            idle=self.driver.idle,
        )
        self.fallbacks = config.fallbacks
        self.relayed = 0
        self.draining = False
        self.log: DecisionLog | None = None

    @property
    def in_hand(self) -> int:
        """How many requests wait, fly or are relayed beside the scheduler."""
        return self.driver.in_hand + self.relayed

    def snapshot(self) -> Snapshot:
        """Return the scheduler's state."""
        state = self.driver.snapshot()
        assert isinstance(state, Snapshot)
        return state

    def gauges(self) -> "Iterable[Gauge]":
        """Yield what only needs reading when somebody looks."""
        generation, log = self.snapshot().generation, self.log
        yield "penstock_generation", "Of the configuration, 1 at the start.", {}, generation
        if log is not None:
            yield "penstock_log_failing", "1 while the log cannot be written.", {}, log.failing
            yield "penstock_log_lost_lines", "Lines of the log that are missing.", {}, log.lost
        yield "penstock_in_hand", "Requests waiting, in flight or relayed.", {}, self.in_hand
        faults, held = self.driver.faults, self.room.used_bytes
        yield "penstock_driver_faults", "Errors outside any request, told in the log.", {}, faults
        connections = sum(link.open_connections for link in self.links.values())
        yield "penstock_held_body_bytes", "Bytes of callers' bodies, waiting or sent.", {}, held
        yield "penstock_ids_kept", "Ids whose upstream is known.", {}, len(self.holders)
        yield "penstock_upstream_connections", "Open connections.", {}, connections
        if self.pipeline is not None:
            for reason, spans in self.pipeline.lost.items():
                yield "penstock_otel_lost_spans", "Spans that were lost.", {"reason": reason}, spans
            queued = self.pipeline.queued
            yield "penstock_otel_queued_spans", "Spans that wait to be sent.", {}, queued
        if self.predictor.guard is not None:
            yield from _of_predictor(self.predictor.guard, self.predictor.unread)

    def _reading(self, loaded: Loaded) -> ReadingRules:
        config = loaded.config
        return ReadingRules(
            Callers(loaded),
            Routing(
                ((link.serves, link.wants_caller_key) for link in self.links.values()),
                limited=(name for each in loaded.settings.upstreams for name in each.model_limits),
            ),
            default=default_class_of(config, loaded.settings.classes),
            max_body_bytes=config.server.max_body_bytes,
            body_timeout_s=config.server.body_timeout_s,
            ttl_s={c.name: math.inf if c.ttl_s is None else c.ttl_s for c in config.classes},
        )

    def _take_links(self, loaded: Loaded) -> None:
        """Dial by this configuration from now on; connections that it leaves as they are stay."""
        before = dict(self.links)
        self.links.clear()
        for table in loaded.config.upstreams:
            key = loaded.upstream_keys.get(table.name)
            wired = (table, loaded.forward_proxies.get(table.name))
            kept = before.get(table.name) if self._tables.get(table.name) == wired else None
            if kept is None:
                kept = UpstreamClient(table, key, wired[1])
            else:
                del before[table.name]
                kept.use_key(key)
            self.links[table.name] = kept
            self._tables[table.name] = wired
        for link in before.values():
            task = asyncio.ensure_future(link.close_when_unused())
            self._leaving[task] = link
            task.add_done_callback(lambda done: self._leaving.pop(done, None))

    def reconfigure(self, loaded: Loaded) -> None:
        """Let another configuration hold, from the next event of the scheduler on.

        Raises:
            ProtocolError: the scheduler cannot take it; nothing has changed then.

        """
        if self.draining:
            raise ProtocolError("the sidecar drains: what it would change is going away")
        self.driver.tell(Reconfigured(loaded.settings))
        self._take_links(loaded)
        if loaded.config.server.max_held_bytes != self._max_held_bytes:
            self._max_held_bytes = loaded.config.server.max_held_bytes
            self.room.allow(body_room(self._max_held_bytes))
        self.holders.keep(self.links)
        # Classes that are gone stay known: requests whose bodies are still coming name them.
        self.factory.classes.update((each.name, each) for each in loaded.settings.classes)
        self.predictor.table = table_of(loaded.config)
        self.reader.reconfigure(self._reading(loaded))
        self.fallbacks = loaded.config.fallbacks

    def drain(self) -> None:
        """Refuse new work and everything that waits; what flies may finish."""
        if not self.draining:
            self.draining = True
            self.gate.drain()

    async def close(self) -> None:
        """Close every upstream connection and stop the timer."""
        leaving = dict(self._leaving)
        for task in leaving:
            task.cancel()
        for link in (*self.links.values(), *leaving.values()):
            await link.close()
        self.driver.close()


def _of_predictor(predictor: "GuardedPredictor", unread: int) -> "Iterable[Gauge]":
    """Yield how the predictor fares; by route over its last replies."""
    counts = predictor.counts
    fallbacks = sum(counts.fallbacks.values())
    yield "penstock_predictor_predicted", "Estimates it gave.", {}, counts.predicted
    yield "penstock_predictor_usual", "Estimates of what its kind has.", {}, counts.usual
    yield "penstock_predictor_fallbacks", "Estimates it did not give.", {}, fallbacks
    yield "penstock_predictor_learned", "Replies it learnt from.", {}, counts.learned
    yield "penstock_predictor_unread", "Bodies that it could not read.", {}, unread
    yield "penstock_predictor_failures", "Replies it failed on.", {}, counts.learn_failures
    routes = predictor.stats.figures()
    for figure, text in _FIGURES_BY_ROUTE.items():
        yield f"penstock_predictor_{figure}", text, {"route": ""}, None
        for route, figures in routes.items():
            yield f"penstock_predictor_{figure}", text, {"route": route}, getattr(figures, figure)
