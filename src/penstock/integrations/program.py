"""One program's schedulers: one per provider it talks to, all with the same settings."""

import importlib.util
import logging
import math
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from penstock.calls.estimate import Predictor
from penstock.calls.factory import RequestFactory
from penstock.calls.tracing import Tracer
from penstock.core.model import TokenEstimate, TrafficClass
from penstock.core.settings import Settings, Stack, UpstreamSettings
from penstock.core.snapshot import Snapshot
from penstock.integrations.gates import ProgramGate, ProgramSyncGate
from penstock.integrations.predictors import predictor_of
from penstock.log.writer import DecisionLog
from penstock.policies.registry import build_scheduler
from penstock.runtime.clock import Clock, ThreadClock
from penstock.runtime.driver import Driver, Observer
from penstock.runtime.telemetry import new_run

if TYPE_CHECKING:
    from penstock.predict.online.guard import GuardedPredictor, TokenPredictor

DEFAULT_CLASSES = (
    TrafficClass("interactive", weight=4.0, estimate=TokenEstimate(256, 1024)),
    TrafficClass("batch", weight=1.0, estimate=TokenEstimate(256, 1024)),
)
"""What a program gets that configures nothing (ours, version 1)."""

QUEUE_TTL_S = 600.0
"""How long a call without a deadline may wait: the official SDKs' own timeout."""

DEFAULT_UPSTREAM = "default"
logging.getLogger("penstock").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Outlet:
    """The way to one provider: its scheduler and the gates in front of it."""

    name: str
    driver: Driver
    gate: ProgramGate
    sync_gate: ProgramSyncGate
    log: DecisionLog | None = None


class Penstock:
    """Schedules everything that one program sends, from its event loops and threads alike.

    Each provider (each host, for the HTTP transports) has a scheduler of its own: they share no
    capacity, and one's trouble must not hold up another's calls.

    Args:
        classes: the traffic classes; `DEFAULT_CLASSES` has "interactive" and "batch".
        default_class: for calls that name none; the first class if None.
        stack: the policies of the four layers.
        upstream: capacity, limits and first guess of the service time, for each provider.
        predictor: "table" (the class's estimate, capped by the call's `max_tokens`),
            "max_tokens" (callers set it to what they expect), "learned" (`penstock.predict`,
            needs numpy), a predictor of `penstock.predict` (to load and save what it learns, or
            with a prior of yours), or one of your own; one that fails is stood in for.
        decision_log: where to write decisions; "d.jsonl" becomes "d.HOST.jsonl" for each host.
        observers: shown every event and action of every provider.
        tracer: traces each call; "auto" makes OpenTelemetry spans if that is installed.
        queue_ttl_s: how long a call without a deadline may wait.
        clock: for tests.

    Raises:
        ConfigError: a policy or an option that does not exist.
        ValueError: the default class is not among the classes.

    """

    def __init__(
        self,
        *,
        classes: tuple[TrafficClass, ...] = DEFAULT_CLASSES,
        default_class: str | None = None,
        stack: Stack | None = None,
        upstream: UpstreamSettings | None = None,
        predictor: "Predictor | TokenPredictor | GuardedPredictor | str" = "table",
        decision_log: Path | str | None = None,
        observers: Iterable[Observer] = (),
        tracer: Tracer | Literal["auto"] | None = "auto",
        queue_ttl_s: float = QUEUE_TTL_S,
        clock: Clock | None = None,
    ) -> None:
        """Check the settings; schedulers start with the first call to each provider."""
        self.settings = Settings(
            classes=classes,
            upstreams=(replace(upstream or UpstreamSettings(), name=DEFAULT_UPSTREAM),),
            stack=stack or Stack(),
        )
        build_scheduler(self.settings)  # fail now, not at the first call
        self.factory = RequestFactory(
            classes,
            run=new_run(),
            default_class=default_class,
            predictor=predictor_of(predictor),
            ttl_s=queue_ttl_s if queue_ttl_s > 0 else math.inf,
            tracer=_auto_tracer() if tracer == "auto" else tracer,
        )
        self._log_path = None if decision_log is None else Path(decision_log)
        self._observers = tuple(observers)
        self._clock = clock or ThreadClock()
        self._outlets: dict[str, Outlet] = {}
        self._making = threading.Lock()

    def outlet(self, name: str = DEFAULT_UPSTREAM) -> Outlet:
        """Return the way to a provider; made when it is first asked for."""
        found = self._outlets.get(name)
        if found is None:
            with self._making:
                found = self._outlets.get(name) or self._make(name)
                self._outlets[name] = found
        return found

    def gate(self, name: str = DEFAULT_UPSTREAM) -> ProgramGate:
        """Return the gate for coroutines in front of a provider."""
        return self.outlet(name).gate

    def sync_gate(self, name: str = DEFAULT_UPSTREAM) -> ProgramSyncGate:
        """Return the gate for threads in front of a provider."""
        return self.outlet(name).sync_gate

    def snapshot(self) -> dict[str, Snapshot]:
        """Return each provider's state, by its name."""
        return {
            name: cast("Snapshot", outlet.driver.snapshot())
            for name, outlet in list(self._outlets.items())
        }

    def drain(self) -> None:
        """Refuse new calls and all that wait; what flies may finish."""
        for outlet in list(self._outlets.values()):
            outlet.gate.drain()

    def close(self) -> None:
        """Drain, stop the timers and write the decision logs out."""
        self.drain()
        for outlet in list(self._outlets.values()):
            outlet.driver.close()
            if outlet.log is not None:
                outlet.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def async_client(self, **options: Any) -> Any:
        """Return an httpx2 (or httpx) `AsyncClient` that this penstock schedules.

        See `penstock.async_client`.
        """
        from penstock.integrations.http.clients import async_client

        return async_client(penstock=self, **options)

    def client(self, **options: Any) -> Any:
        """Return an httpx2 (or httpx) `Client` that this penstock schedules.

        See `penstock.client`.
        """
        from penstock.integrations.http.clients import client

        return client(penstock=self, **options)

    def _make(self, name: str) -> Outlet:
        named = replace(self.settings.upstreams[0], name=name)
        settings = replace(self.settings, upstreams=(named,))
        log = None
        if self._log_path is not None:
            log = DecisionLog(
                _log_path(self._log_path, name),
                run=self.factory.run,
                now=self._clock.time(),
                settings=settings,
            )
        observers = [*self._observers, *([log] if log is not None else [])]
        scheduler = build_scheduler(settings)
        driver = Driver(scheduler, clock=self._clock, observers=observers)
        gate = ProgramGate(driver, self.factory)
        return Outlet(name, driver, gate, ProgramSyncGate(driver, self.factory), log)


def _log_path(path: Path, name: str) -> Path:
    if name == DEFAULT_UPSTREAM:
        return path
    return path.with_name(f"{path.stem}.{re.sub(r'[^A-Za-z0-9._-]', '_', name)}{path.suffix}")


def _auto_tracer() -> Tracer | None:
    if importlib.util.find_spec("opentelemetry") is None:
        return None
    from penstock.runtime.spans import SpanTracer

    return SpanTracer()
