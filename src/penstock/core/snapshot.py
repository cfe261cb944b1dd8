"""The scheduler's state at one moment, as plain data for people and dashboards."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from penstock.core.events import Pinned, WindowMoved
from penstock.core.lane import Lane
from penstock.core.tickets import Tickets
from penstock.core.upstream.breaker import BreakerState
from penstock.core.upstream.ledger import Upstream

PAUSES_SHOWN = 100


@dataclass(frozen=True, slots=True)
class ClassSnapshot:
    """One class in one lane."""

    waiting: int
    waiting_tokens: float
    in_flight: int
    deficit_tokens: float
    offered: float


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """One lane: the classes that contend for the same upstreams."""

    upstreams: tuple[str, ...]
    severity: float
    pressure: float
    slowdown: float
    waiting: int
    waiting_work_s: float
    classes: dict[str, ClassSnapshot]


@dataclass(frozen=True, slots=True)
class PauseSnapshot:
    """One circuit that is not closed.

    Attributes:
        account: whose, as `Request.account`; empty for the default one.
        state: "open" or "half_open".
        cause: what opened it, a `RefusalCause` or "faults".
        until: driver seconds at which it becomes half-open.
        model: whose requests alone it holds back; empty for all of the account's, or those that
            name none.

    """

    account: str
    state: str
    cause: str
    until: float
    model: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamSnapshot:
    """One upstream: room, circuits and the fit of its service time by model.

    `open_at` is the default account's, `probation` says that its circuit is half-open or that the
    upstream is an outlier; `pauses` are the circuits that are not closed, some hundred at most.

    `unmeasured` counts the replies whose times were no evidence, because the driver had stalled;
    `window_moved` is the last move of its window; None if there was none.
    """

    window: float
    in_flight: int
    in_flight_tokens: float
    open_at: float
    probation: bool
    slowdown: float
    service: dict[str, tuple[float, float]]
    window_moved: WindowMoved | None
    pauses: tuple[PauseSnapshot, ...] = ()
    unmeasured: int = 0

    @property
    def open(self) -> tuple[PauseSnapshot, ...]:
        """Return the circuits through which nothing goes."""
        return tuple(pause for pause in self.pauses if pause.state == "open")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at `now`.

    Attributes:
        deferred: how many requests are held back by timers.
        ignored_numbers: impossible numbers of providers that were ignored so far.
        faults: how often something inside raised so far.
        generation: 1, and one more for each time that new settings were taken.
        pins: what operators hold at a value, each until it ends by itself.

    """

    now: float
    draining: bool
    deferred: int
    lanes: tuple[LaneSnapshot, ...]
    upstreams: dict[str, UpstreamSnapshot]
    ignored_numbers: int = 0
    faults: int = 0
    generation: int = 1
    pins: tuple[Pinned, ...] = ()

    @property
    def waiting(self) -> int:
        """Return how many requests wait in all lanes, the deferred not counted."""
        return sum(lane.waiting for lane in self.lanes)

    @property
    def in_flight(self) -> int:
        """Return how many requests fly to all upstreams."""
        return sum(upstream.in_flight for upstream in self.upstreams.values())


def snapshot_of(
    now: float,
    tickets: Tickets,
    ignored_numbers: int,
    faults: int,
    generation: int,
    pins: tuple[Pinned, ...],
) -> Snapshot:
    """Return a copy of what these hold now."""
    lanes, upstreams = tickets.lanes.by_upstreams, tickets.upstreams
    return Snapshot(
        now,
        tickets.draining,
        len(tickets.deferred),
        tuple(_lane(names, lane, now) for names, lane in lanes.items()),
        {name: _upstream(upstream, now) for name, upstream in upstreams.items()},
        ignored_numbers + sum(upstream.ignored for upstream in upstreams.values()),
        faults,
        generation,
        pins,
    )


def _lane(names: tuple[str, ...], lane: Lane, now: float) -> LaneSnapshot:
    signals = lane.signals
    classes = {
        name: ClassSnapshot(
            demand.waiting,
            demand.waiting_tokens,
            demand.in_flight,
            lane.allocator.deficit_tokens(name),
            demand.offered(now=now),
        )
        for name, demand in signals.classes.items()
    }
    return LaneSnapshot(
        names,
        signals.severity,
        signals.pressure,
        signals.slowdown,
        signals.waiting,
        signals.waiting_work_s,
        classes,
    )


def _upstream(upstream: Upstream, now: float) -> UpstreamSnapshot:
    return UpstreamSnapshot(
        upstream.capacity.window,
        len(upstream.in_flight),
        upstream.tokens,
        upstream.default.breaker.open_at(now),
        upstream.default.breaker.half_open or upstream.outlier.held,
        upstream.slowdown,
        upstream.services(),
        upstream.moved,
        tuple(_pauses(upstream, now)),
        upstream.unmeasured,
    )


def _pauses(upstream: Upstream, now: float) -> Iterator[PauseSnapshot]:
    accounts = {"": upstream.default, **upstream.others}
    shut = (
        (name, model, breaker)
        for name, account in accounts.items()
        for model, breaker in (("", account.breaker), *account.spent.items())
        if breaker.state(now) is not BreakerState.CLOSED
    )
    for name, model, breaker in islice(shut, PAUSES_SHOWN):
        state = breaker.state(now).value
        yield PauseSnapshot(name, state, breaker.cause, breaker.open_until, model)
