"""A small world on a virtual clock: callers, a scheduler, and a provider that may misbehave.

It is the tests' own driver, so that laws of the core do not lean on the drivers under test.
"""

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Draining,
    Event,
    Failed,
    FirstToken,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.model import Request
from penstock.core.scheduler import Scheduler
from penstock.core.settings import Settings
from penstock.policies.registry import build_scheduler

COMPLETIONS, ARRIVALS, TIMERS = 0, 1, 2
MANY_STEPS = 50_000


@dataclass(frozen=True)
class Fate:
    """What becomes of one attempt.

    Attributes:
        kind: "reply", "broken" (retryable), "refused" (the caller's fault), "lost" (mid-stream), or
            the name of a `RefusalCause`.
        after_s: from dispatch to that end.
        tokens: the real count of a reply, None if nobody knows.
        retry_after_s: what a refusal asks for.
        streams: whether a first token is seen half way.

    """

    kind: str = "reply"
    after_s: float = 1.0
    tokens: int | None = 100
    retry_after_s: float | None = None
    streams: bool = False
    jitter: float = 0.5


@dataclass(frozen=True)
class Caller:
    """One request and when its caller loses patience (inf: never)."""

    request: Request
    leaves_at: float = math.inf


@dataclass(frozen=True)
class World:
    """Everything that happens. Fates go to attempts in turn; when used up, all goes well.

    Attributes:
        always: what becomes of every attempt of some requests, by id, whatever else happens.
        well: what becomes of an attempt when all goes well.

    """

    settings: Settings
    callers: tuple[Caller, ...]
    fates: tuple[Fate, ...] = ()
    drains_at: float = math.inf
    always: Mapping[int, Fate] = field(default_factory=dict)
    well: Fate = field(default_factory=Fate)


@dataclass
class Run:
    """What happened.

    Attributes:
        log: every event with its time and what the scheduler answered.
        outcomes: how each request ended; more than one word is a defect.
        flying: the tickets out there, by request id: their upstream.

    """

    world: World
    penstock: Scheduler
    log: list[tuple[float, Event, list[Action]]] = field(default_factory=list)
    outcomes: dict[int, list[str]] = field(default_factory=dict)
    flying: dict[int, Dispatch] = field(default_factory=dict)
    _queue: list[tuple[float, int, int, Event, int]] = field(default_factory=list)
    _attempts: dict[int, int] = field(default_factory=dict)
    _sent: int = 0
    _serial: int = 0

    @property
    def alive(self) -> list[int]:
        """The ids of those that have arrived and not ended."""
        return [id_ for id_, words in self.outcomes.items() if not words]

    def lines(self) -> Iterator[str]:
        """Return the decision log as text: every action with its time and reasons."""
        for now, _, actions in self.log:
            for action in actions:
                yield f"{now!r} {action!r}"

    def steps(self) -> Iterator[tuple[float, Event, list[Action]]]:
        """Let the world run to its end, pausing after every event."""
        for caller in self.world.callers:
            self._plan(caller.request.arrived_at, ARRIVALS, Arrived(caller.request))
            if caller.leaves_at < math.inf:
                self._plan(caller.leaves_at, COMPLETIONS, Cancelled(caller.request.id))
        if self.world.drains_at < math.inf:
            self._plan(self.world.drains_at, ARRIVALS, Draining())
        now = -math.inf
        while (item := self._next(now)) is not None:
            now, event = item
            actions = self.penstock.handle(event, now=now)
            self._note(event, actions, now)
            self.log.append((now, event, actions))
            assert len(self.log) < MANY_STEPS, "the world does not come to rest"
            yield now, event, actions

    def _plan(self, at: float, rank: int, event: Event, attempt: int = 0) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (at, rank, self._serial, event, attempt))

    def _next(self, now: float) -> tuple[float, Event] | None:
        """Return what happens next; what nobody could say any more is passed over."""
        while True:
            wakes_at = self.penstock.next_wakeup()
            if self._queue and (wakes_at is None or self._queue[0][0] <= wakes_at):
                at, _, _, event, attempt = heapq.heappop(self._queue)
                if self._can_happen(event, attempt):
                    return at, event
            elif wakes_at is not None:
                assert wakes_at >= now
                return wakes_at, Woke()
            else:
                return None

    def _can_happen(self, event: Event, attempt: int) -> bool:
        if isinstance(event, Cancelled):
            return event.request_id in self.outcomes
        id_ = getattr(event, "request_id", None)
        return id_ is None or (id_ in self.flying and self._attempts[id_] == attempt)

    def _note(self, event: Event, actions: list[Action], now: float) -> None:
        if isinstance(event, Arrived):
            self.outcomes[event.request.id] = []
        elif isinstance(event, Completed | Failed | Throttled):
            del self.flying[event.request_id]
            if isinstance(event, Completed):
                self.outcomes[event.request_id].append("completed")
            elif isinstance(event, Failed) and not event.retryable:
                self.outcomes[event.request_id].append("failed")
        elif isinstance(event, Cancelled) and not self.outcomes[event.request_id]:
            self.flying.pop(event.request_id, None)
            self.outcomes[event.request_id].append("cancelled")
        for action in actions:
            if isinstance(action, Reject):
                self.outcomes[action.request.id].append(action.reason)
            elif isinstance(action, Dispatch):
                self._depart(action, now)

    def _depart(self, action: Dispatch, now: float) -> None:
        id_ = action.request.id
        assert id_ not in self.flying, "sent while it flew"
        self.flying[id_] = action
        attempt = self._attempts[id_] = self._attempts.get(id_, 0) + 1
        fates = self.world.fates
        fate = fates[self._sent] if self._sent < len(fates) else self.world.well
        fate = self.world.always.get(id_, fate)
        self._sent += 1
        if fate.streams:
            self._plan(now + fate.after_s / 2, COMPLETIONS, FirstToken(id_), attempt)
        self._plan(now + fate.after_s, COMPLETIONS, _end(id_, fate), attempt)


def _end(id_: int, fate: Fate) -> Event:
    if fate.kind == "reply":
        return Completed(id_, fate.tokens)
    if fate.kind == "broken":
        return Failed(id_, retryable=True, jitter=fate.jitter)
    if fate.kind == "refused":
        return Failed(id_, retryable=False, upstream_fault=False)
    if fate.kind == "lost":
        return Failed(id_, retryable=False)
    return Throttled(id_, RefusalCause(fate.kind), fate.retry_after_s, fate.jitter)


def begin(world: World) -> Run:
    """Return the world before its first event."""
    return Run(world, build_scheduler(world.settings))


def finish(world: World) -> Run:
    """Return the world after its last event."""
    run = begin(world)
    for _ in run.steps():
        pass
    return run
