"""The scheduler's state at one moment, as plain data for people and dashboards."""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.events import WindowMoved
from penstock.core.lane import Lane
from penstock.core.upstream.ledger import Upstream


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
class UpstreamSnapshot:
    """One upstream: room, health and the fit of its service time by model.

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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at `now`.

    Attributes:
        deferred: how many requests are held back by timers.
        ignored_numbers: impossible numbers of providers that were ignored so far.
        faults: how often something inside raised so far.

    """

    now: float
    draining: bool
    deferred: int
    lanes: tuple[LaneSnapshot, ...]
    upstreams: dict[str, UpstreamSnapshot]
    ignored_numbers: int = 0
    faults: int = 0

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
    draining: bool,
    lanes: Mapping[tuple[str, ...], Lane],
    upstreams: Mapping[str, Upstream],
    deferred: int,
    ignored_numbers: int,
    faults: int,
) -> Snapshot:
    """Return a copy of what these hold now."""
    return Snapshot(
        now,
        draining,
        deferred,
        tuple(_lane(names, lane, now) for names, lane in lanes.items()),
        {name: _upstream(upstream, now) for name, upstream in upstreams.items()},
        ignored_numbers + sum(upstream.ignored for upstream in upstreams.values()),
        faults,
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
        upstream.health.open_at(now=now),
        upstream.health.probation or upstream.doubt.held,
        upstream.slowdown,
        upstream.services(),
        upstream.moved,
    )
