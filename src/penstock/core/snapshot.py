"""The scheduler's state at one moment, as plain data for people and dashboards.

And in detail: who waits and why, where one request stands, how one would fare that came now.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from penstock.core.events import Pinned, RefusalCause, Why, WindowMoved
from penstock.core.lane import Lane
from penstock.core.model import Request
from penstock.core.ticket import Stage, Ticket
from penstock.core.tickets import Tickets, why_of
from penstock.core.upstream.breaker import BreakerState
from penstock.core.upstream.ledger import Upstream

Cause = Literal["quota", "rate", "overload", "down"]
DOWN: Cause = "down"
_CAUSES: dict[str, Cause] = {
    RefusalCause.QUOTA: "quota",
    RefusalCause.RATE: "rate",
    RefusalCause.OVERLOAD: "overload",
    RefusalCause.SLOW_FIRST_TOKEN: "overload",
}


@dataclass(slots=True)
class WaitingGroup:
    """The waiting requests of one class and tenant that wait for one cause.

    Attributes:
        cause: as in `Why.waits`: "class", "window", "limits", "upstream", "deferral", "backoff".
        arrived_at: when the oldest of them arrived, driver seconds.
        latest_start: the earliest time, driver seconds, after which the p90 of one of them no
            longer fits its deadline; inf if none has a deadline.

    """

    traffic_class: str
    tenant: str
    cause: str
    requests: int = 0
    tokens: float = 0.0
    arrived_at: float = math.inf
    latest_start: float = math.inf


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Where a request stands that still waits.

    Attributes:
        cause: what it waits for now, as in `Why.waits`.
        held_until: when a timer lets it go on, driver seconds; None if it waits for no timer.
        position: which one of its tenant's in its class it is, in the order of the class's
            ordering policy if nothing else arrived; 1 goes next. None while a timer holds it.
        tenants: how many tenants wait in its class; they take turns.
        why: what a decision made now would stand on; `why.waits` counts up to now.

    """

    cause: str
    held_until: float | None
    position: int | None
    tenants: int
    why: Why

    def start_in_s(self, sent_per_s: float, *, now: float) -> float:
        """Return in how many seconds its turn may come, if what comes later goes after it.

        Args:
            sent_per_s: how many of its class were sent lately; where none was, the whole window is
                counted as its class's, at this request's predicted service time.
            now: driver seconds.

        """
        if self.position is None:
            return max(0.0, (self.held_until or now) - now)
        turns = self.position * self.tenants
        if sent_per_s > 0.0:
            return turns / sent_per_s
        return turns * self.why.service_p50_s / max(1.0, self.why.window)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected of the upstreams that serve a request's model.

    Attributes:
        cause: why nothing goes there now: "quota", "rate", "overload" or "down"; None if
            something does.
        start_in_s: seconds until what waits there, the pause included, would have been sent.
        service_p90_s: predicted service time at the 90th percentile, where it is shortest
            of the upstreams that do not pause.

    """

    cause: Cause | None
    start_in_s: float
    service_p90_s: float

    @property
    def done_in_s(self) -> float:
        """In how many seconds the last token would come, going by the p90."""
        return self.start_in_s + self.service_p90_s


class Waiting:
    """Reads the tickets that wait; changes nothing. `held` and `place` look at every ticket."""

    def __init__(self, tickets: Tickets) -> None:
        """Look at these."""
        self._tickets = tickets

    def held(self) -> list[WaitingGroup]:
        """Return what waits by class, tenant and cause, in the order of the oldest."""
        found: dict[tuple[str, str, str], WaitingGroup] = {}
        for ticket in self._tickets.waiting():
            request = ticket.request
            key = (request.traffic_class, request.tenant, ticket.cause)
            held = found.get(key)
            if held is None:
                held = found[key] = WaitingGroup(*key)
            held.requests += 1
            held.tokens += ticket.cost_tokens
            held.arrived_at = min(held.arrived_at, request.arrived_at)
            held.latest_start = min(held.latest_start, ticket.latest_start)
        return sorted(found.values(), key=lambda each: each.arrived_at)

    def place(self, request_id: int, *, now: float) -> QueuePosition | None:
        """Return where a request stands; None if it does not wait."""
        ticket = self._tickets.by_id.get(request_id)
        if ticket is None or ticket.stage is Stage.IN_FLIGHT:
            return None
        lane = self._tickets.lanes.of(ticket.request)
        why = why_of(ticket, lane, now)
        if ticket.stage is Stage.DEFERRED:
            return QueuePosition(
                ticket.cause, self._tickets.deferred.due_at(request_id), None, 0, why
            )
        same = list(self._queued_beside(ticket, lane))
        mine = [each for each in same if each.request.tenant == ticket.request.tenant]
        tenants = len({each.request.tenant for each in same})
        return QueuePosition(ticket.cause, None, _position(ticket, mine, lane, now), tenants, why)

    def outlook(self, request: Request, *, now: float) -> Outlook | None:
        """Return how a request would fare that came now; None if no upstream serves its model.

        Not even a lane is made, whose order the next decision would show.
        """
        serving = [
            each
            for each in self._tickets.upstreams.values()
            if request.upstream in ("", each.name) and each.serves(request.model)
        ]
        if not serving:
            return None
        opening = {each.name: _opens_at(each, request, now) for each in serving}
        using = [each for each in serving if opening[each.name] <= now] or serving
        p90_tokens = request.estimate.p90_tokens
        service_s = min(each.known_service(request.model).predict_s(p90_tokens) for each in using)
        first = min(using, key=lambda each: opening[each.name])
        pause_s = opening[first.name] - now
        cause = _cause_of(first, request, now) if pause_s > 0.0 else None
        lane = self._tickets.lanes.by_upstreams.get(tuple(each.name for each in serving))
        return Outlook(cause, pause_s + _queue_s(lane, using, service_s), service_s)

    def _queued_beside(self, ticket: Ticket, lane: Lane) -> Iterator[Ticket]:
        name = ticket.request.traffic_class
        for each in self._tickets.by_id.values():
            request = each.request
            beside = each.stage is Stage.QUEUED and request.traffic_class == name
            if beside and self._tickets.lanes.of(request) is lane:
                yield each


def _position(ticket: Ticket, tickets: list[Ticket], lane: Lane, now: float) -> int:
    """Return how many takes from a queue of these it is until the ticket comes, itself included."""
    queue = lane.make_queue()
    for each in tickets:
        queue.push(each, now=now)
    taken = 1
    while (head := queue.head(now=now)) is not ticket:
        assert head is not None
        queue.take(head, now=now)
        taken += 1
    return taken


def _opens_at(upstream: Upstream, request: Request, now: float) -> float:
    return max(upstream.known_breaker(request).send_at(now), upstream.paused_until)


def _cause_of(upstream: Upstream, request: Request, now: float) -> Cause:
    if upstream.paused_until > now:
        return DOWN
    return _CAUSES.get(upstream.known_breaker(request).cause, DOWN)


def _queue_s(lane: Lane | None, using: Sequence[Upstream], service_s: float) -> float:
    """Return in how many seconds the work that is there already would be sent and done."""
    window = sum(each.capacity.window for each in using)
    occupied = sum(each.occupied for each in using)
    waiting_s = lane.signals.waiting_work_s if lane is not None else 0.0
    if (not waiting_s and occupied < window) or window == math.inf:
        return 0.0
    flying_s = lane.signals.in_flight_work_s if lane is not None else occupied * service_s
    return (waiting_s + flying_s) / max(1.0, window)


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
