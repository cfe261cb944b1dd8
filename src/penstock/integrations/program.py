"""One program's schedulers: one per provider it talks to, all with the same settings."""

import logging
import math
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from weakref import WeakSet

from penstock.calls.factory import RequestFactory
from penstock.calls.spec import Predictor
from penstock.calls.tracing import Tracer
from penstock.core.model import TokenEstimate, TrafficClass
from penstock.core.rule import Rule
from penstock.core.settings import Settings, Stack, UpstreamSettings, require_kind
from penstock.core.snapshot import Snapshot
from penstock.integrations.clients import HttpClients
from penstock.integrations.context import ProgramGate, ProgramSyncGate
from penstock.integrations.predictors import predictor_of
from penstock.log.writer import DecisionLog
from penstock.policies.registry import build_scheduler
from penstock.runtime.accounts import Accounts
from penstock.runtime.clock import Clock, ThreadClock
from penstock.runtime.driver import Driver, Observer
from penstock.runtime.guarded import Guard
from penstock.runtime.telemetry import new_run
from penstock.runtime.unread import UNREAD_S
from penstock.telemetry.auto import AutoTracer

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
_SCHEDULER = ("tenant_turns", "queue_limit", "retry_share", "max_attempts", "max_pause_s")
_SPAN = Rule(low=0, low_is_allowed=False, infinite=True)
_ALL: "WeakSet[Penstock]" = WeakSet()
logger = logging.getLogger("penstock.program")
logging.getLogger("penstock").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Outlet:
    """The way to one provider: its scheduler and the gates in front of it."""

    name: str
    driver: Driver
    gate: ProgramGate
    sync_gate: ProgramSyncGate
    log: DecisionLog | None = None
    accounts: Accounts = field(default_factory=Accounts)


class Penstock(HttpClients):
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
        tracer: traces each call; "auto" makes OpenTelemetry spans and metrics if the program has
            set up a provider, or its environment (`OTEL_*`) names where they go.
        queue_ttl_s: how long a call without a deadline may wait.
        unread_s: for how long nobody may read from a streamed reply before its slot is given back;
            the reply can be read on.
        clock: for tests.
        scheduler: of each provider's scheduler, as in `[scheduler]` of `penstock.toml`:
            `tenant_turns`, `queue_limit`, `retry_share`, `max_attempts`, `max_pause_s`.

    Raises:
        ConfigError: a policy or an option that does not exist.
        TypeError: an argument that does not exist.
        ValueError: a number breaks its rule, or the default class is not among the classes.

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
        unread_s: float = UNREAD_S,
        clock: Clock | None = None,
        **scheduler: Any,
    ) -> None:
        """Check the settings; schedulers start with the first call to each provider.

        Raises:
            TypeError: an argument is of another kind, or has no meaning here.
            ValueError: one has a value that cannot work.

        """
        upstream, stack = upstream or UpstreamSettings(), stack or Stack()
        require_kind(UpstreamSettings, upstream=upstream)
        require_kind(Stack, stack=stack)
        self.settings = Settings(
            classes=classes,
            upstreams=(replace(upstream, name=DEFAULT_UPSTREAM),),
            stack=stack,
            **_known(scheduler),
        )
        build_scheduler(self.settings)  # fail now, not at the first call
        _SPAN.require(unread_s=unread_s)
        self._unread_s = unread_s
        self.factory = RequestFactory(
            classes,
            run=new_run(),
            default_class=default_class,
            predictor=predictor_of(predictor),
            ttl_s=queue_ttl_s if queue_ttl_s > 0 else math.inf,
            tracer=AutoTracer() if tracer == "auto" else tracer,
        )
        self._log_path = None if decision_log is None else Path(decision_log)
        self._observers = tuple(observers)
        self._clock = clock or ThreadClock()
        self._guard = Guard()
        self._forked_as = ""
        self._outlets: dict[str, Outlet] = {}
        self._making = threading.Lock()
        _ALL.add(self)

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

    @property
    def reading_faults(self) -> dict[str, int]:
        """How often each reader or hook has failed; what it read was passed on all the same."""
        return dict(self._guard.faults)

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
        if isinstance(self._clock, ThreadClock):
            self._clock.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _make(self, name: str) -> Outlet:
        settings = self._settings_of(name)
        log = self._log_of(name, settings)
        driver = Driver(
            build_scheduler(settings),
            clock=self._clock,
            observers=self._observers_with(log),
            unread_s=self._unread_s,
            guard=self._guard,
        )
        gate = ProgramGate(driver, self.factory)
        return Outlet(name, driver, gate, ProgramSyncGate(driver, self.factory), log)

    def _settings_of(self, name: str) -> Settings:
        named = replace(self.settings.upstreams[0], name=name)
        return replace(self.settings, upstreams=(named,))

    def _log_of(self, name: str, settings: Settings) -> DecisionLog | None:
        if self._log_path is None:
            return None
        return DecisionLog(
            _log_path(self._log_path, name, self._forked_as),
            run=self.factory.run,
            now=self._clock.time(),
            settings=settings,
        )

    def _observers_with(self, log: DecisionLog | None) -> list[Observer]:
        tracer = self.factory.tracer
        return [
            *self._observers,
            *([tracer] if tracer is not None else []),
            *([log] if log is not None else []),
        ]

    def become(self, other: "Penstock") -> None:
        """Take over the settings of another that is not in use; gates and clients stay.

        Raises:
            RuntimeError: calls wait or fly, by the old settings.

        """
        in_hand = sum(outlet.driver.in_hand for outlet in self._outlets.values())
        if in_hand:
            raise RuntimeError(
                f"{in_hand} calls of this program wait or fly: configure() before the first call, "
                "or when all have ended; for a second scheduler make a Penstock(...)"
            )
        elders, forked_as = self._outlets, self._forked_as
        self.close()
        self.__dict__.update(other.__dict__)
        self._forked_as = forked_as
        _ALL.discard(other)
        for name, elder in elders.items():
            made = self._make(name)
            for gate in (elder.gate, elder.sync_gate):
                gate.driver, gate.factory = made.driver, self.factory
            self._outlets[name] = replace(made, gate=elder.gate, sync_gate=elder.sync_gate)

    def renew(self) -> None:
        """Start afresh in a forked child, with the same settings; `os.fork` has it called.

        Gates, clients and decorated functions go on to work. Nothing waits or flies; the parent's
        calls are the parent's. Public ids have another run, and decision logs files of their own.
        """
        self._making = threading.Lock()
        self._forked_as = f".{os.getpid()}"
        self.factory.run = new_run()
        if isinstance(self._clock, ThreadClock):
            self._clock.renew()
        for name, outlet in self._outlets.items():
            settings = self._settings_of(name)
            if outlet.log is not None:
                outlet.log.abandon()
            log = self._log_of(name, settings)
            outlet.driver.renew(build_scheduler(settings), self._observers_with(log))
            outlet.gate.renew()
            outlet.sync_gate.renew()
            self._outlets[name] = replace(outlet, log=log)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options; refuse those that no scheduler of a program has."""
    unknown = sorted(set(options) - set(_SCHEDULER))
    if unknown:
        raise TypeError(
            f"Penstock() and configure() have no {unknown[0]!r}: beside their named arguments they "
            f"take {', '.join(_SCHEDULER)}; is it a typing error?"
        )
    return options


def _renew_all() -> None:
    renewed = list(_ALL)
    for penstock in renewed:
        penstock.renew()
    if renewed:
        logger.warning(
            "process %d was forked from %d: penstock starts afresh in it with the same "
            "configuration, and each process finds and keeps its own share of the provider. "
            "Processes that share an account had better share a sidecar",
            os.getpid(), os.getppid(),
        )  # fmt: skip


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


def _log_path(path: Path, name: str, forked_as: str) -> Path:
    host = "" if name == DEFAULT_UPSTREAM else "." + re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return path.with_name(f"{path.stem}{host}{forked_as}{path.suffix}")
