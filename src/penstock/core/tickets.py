"""Every request on its way: where it is, which timers look at it again, and what it changes."""

import heapq
import math
from dataclasses import dataclass, field

from penstock.core.backlog import Backlog
from penstock.core.events import Abandoned, Action, Dispatch, Reject, Why
from penstock.core.lane import Lane
from penstock.core.lanes import Lanes
from penstock.core.ticket import Stage, Ticket, kind_of
from penstock.core.upstream.ledger import Upstream
from penstock.errors import ProtocolError

# A module's name is found faster than a member of an Enum, here twice for each event.
_QUEUED, _IN_FLIGHT, _ENDED = Stage.QUEUED, Stage.IN_FLIGHT, Stage.ENDED


class Timers:
    """At most one due time per request; O(log n) to set, O(1) to cancel.

    Cancelled entries leave the heap when they surface, or all at once when they are the
    majority: a request that ends early must not hold memory until its time-to-live is over.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.earliest = math.inf
        """Nothing is due before; something cancelled may stand here still."""
        self._due: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def set(self, request_id: int, at: float) -> None:
        """Make the request due at `at`, instead of whatever was set before."""
        self._due[request_id] = at
        heapq.heappush(self._heap, (at, request_id))
        if at < self.earliest:
            self.earliest = at

    def cancel(self, request_id: int) -> bool:
        """Forget the request; return whether it was set."""
        if self._due.pop(request_id, None) is None:
            return False
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [(at, id_) for id_, at in self._due.items()]
            heapq.heapify(self._heap)
        return True

    def due_at(self, request_id: int) -> float | None:
        """Return when the request is due, or None if it is not set."""
        return self._due.get(request_id)

    def next_at(self) -> float:
        """Return the earliest due time, inf if none."""
        heap, due = self._heap, self._due
        while heap:
            at, id_ = heap[0]
            if due.get(id_) == at:
                self.earliest = at
                return at
            heapq.heappop(heap)
        self.earliest = math.inf
        return math.inf

    def pop_due(self, *, now: float) -> list[int]:
        """Remove and return all ids due by `now`, in order of time, then id."""
        ids: list[int] = []
        if self.earliest > now:
            return ids
        while self.next_at() <= now:
            _, id_ = heapq.heappop(self._heap)
            del self._due[id_]
            ids.append(id_)
        return ids

    def __contains__(self, request_id: int) -> bool:
        """Return whether the request is set."""
        return request_id in self._due

    def __len__(self) -> int:
        """Return how many are set."""
        return len(self._due)


@dataclass(slots=True)
class Tickets:
    """The tickets by request id, and every change of stage with all that it does to the ledgers.

    Attributes:
        deferred: when a ticket that is held back by time alone is looked at again.
        expiry: when a ticket that still waits is given up.
        actions: what the driver must do, in order, as found so far for the event in hand.
        at_work: the ticket in hand: the one that ends if something inside raises.
        draining: no new work is taken.

    """

    lanes: Lanes
    upstreams: dict[str, Upstream]
    backlog: Backlog
    by_id: dict[int, Ticket] = field(default_factory=dict)
    deferred: Timers = field(default_factory=Timers)
    expiry: Timers = field(default_factory=Timers)
    actions: list[Action] = field(default_factory=list)
    at_work: Ticket | None = None
    draining: bool = False

    def pump(self, lane: Lane, now: float) -> None:
        """Send everything in a lane that may go now: the step that ends nearly every event."""
        signals, nesting = lane.signals, self.lanes.nesting
        self.at_work = None
        while signals.waiting:
            chosen = lane.next(now)
            if chosen is None and nesting.places:
                chosen = nesting.next(lane, now)
            if chosen is None:
                return
            ticket, upstream = chosen
            request = ticket.request
            breaker = upstream.circuit(request)
            if breaker.forsaken:
                ticket = self._last_come(ticket, lane, upstream, now)
                request = ticket.request
            self.at_work = ticket
            lane.take(ticket, now)
            self.backlog.leave(ticket)
            ticket.hold("", now)
            lane.charge(ticket)
            why = why_of(ticket, lane, now)
            if ticket.attempts:
                if breaker.troubled and not ticket.retry_paid:
                    lane.retries.spend(now=now)
                ticket.retry_paid = False
                self.expiry.cancel(request.id)
            upstream.depart(ticket, now)
            signals.departed(ticket)
            ticket.stage = _IN_FLIGHT
            if request.expires_at < math.inf or ticket.hopeless_at < math.inf:
                self.expiry.cancel(request.id)
            if lane.homes is not None and request.session:
                lane.homes.put(request.session, upstream.name)
            self.actions.append(Dispatch(request, upstream.name, why))
            self.at_work = None
        lane.emptied()

    def _last_come(self, chosen: Ticket, lane: Lane, upstream: Upstream, now: float) -> Ticket:
        """Return who came last of those that the same holds back, to be the probe instead.

        Callers that leave after the same time leave in the order in which they came: where one has
        left a probe, the next oldest would leave the next one, and nobody would ever be served.
        """
        kind, name = kind_of(chosen), chosen.request.traffic_class
        for each in reversed(self.by_id.values()):
            request = each.request
            alike = each.stage is _QUEUED and request.traffic_class == name
            alike = alike and kind_of(each) == kind and self.lanes.of(request) is lane
            if alike and lane.lets(each, upstream, now):
                return each
        return chosen

    def pump_sharing(self, upstream: str, now: float) -> None:
        """Send what may go now in each lane that an upstream serves."""
        for lane in self.lanes.of_upstream[upstream]:
            self.pump(lane, now)

    def pump_all(self, now: float) -> None:
        """Send what may go now in each lane."""
        for lane in self.lanes:
            self.pump(lane, now)

    def flying(self, request_id: int, what: str) -> Ticket:
        """Return a ticket in flight; it is the one at work from now on.

        Raises:
            ProtocolError: it does not fly.

        """
        ticket = self.by_id.get(request_id)
        if ticket is None or ticket.stage is not _IN_FLIGHT:
            state = "unknown" if ticket is None else ticket.stage.value
            raise ProtocolError(
                f"{what} of request {request_id}, which is {state}: only what flies can be "
                "answered; was an outcome reported twice?"
            )
        self.at_work = ticket
        return ticket

    def landed(self, ticket: Ticket) -> Lane:
        """Count an attempt as over; return its lane."""
        lane = self.lanes.of(ticket.request)
        lane.signals.landed(ticket)
        return lane

    def hold_back(self, ticket: Ticket) -> None:
        """Count a ticket as waiting, until it is sent or given up."""
        self.backlog.enter(ticket)
        until = ticket.given_up_at
        if until < math.inf:
            self.expiry.set(ticket.request.id, until)

    def defer(self, ticket: Ticket, cause: str, until: float, now: float) -> None:
        """Let a ticket wait for time alone."""
        ticket.stage = Stage.DEFERRED
        ticket.hold(cause, now)
        self.deferred.set(ticket.request.id, until)

    def end(self, ticket: Ticket) -> None:
        """Forget a ticket: it was answered, or will be now."""
        id_ = ticket.request.id
        if ticket.stage is not _IN_FLIGHT:  # what flies has left all this
            self.backlog.leave(ticket)
            self.expiry.cancel(id_)
            self.deferred.cancel(id_)
        ticket.stage = _ENDED
        if self.lanes.nesting.places:
            self.lanes.nesting.ended(ticket)
        del self.by_id[id_]

    def reject(
        self,
        ticket: Ticket,
        lane: Lane | None,
        reason: str,
        retry_after_s: float | None,
        now: float,
    ) -> None:
        """Answer a ticket that has ended, or never began, with a refusal."""
        ticket.hold("", now)
        why = why_of(ticket, lane, now)
        self.actions.append(Reject(ticket.request, reason, retry_after_s, why))

    def refuse(self, ticket: Ticket, reason: str, retry_after_s: float | None, now: float) -> None:
        """End a ticket that waits with a refusal."""
        lane = self.lanes.of(ticket.request)
        if ticket.stage is _QUEUED:
            lane.take(ticket, now)
        self.end(ticket)
        self.reject(ticket, lane, reason, retry_after_s, now)

    def abandon(self, ticket: Ticket, now: float) -> None:
        """End a ticket whose caller has left; of one that waited, say for what."""
        lane = self.lanes.of(ticket.request)
        waited = ticket.stage is not _IN_FLIGHT
        if ticket.stage is _QUEUED:
            lane.take(ticket, now)
        self.end(ticket)
        if waited:
            ticket.hold("", now)
            self.actions.append(Abandoned(ticket.request, why_of(ticket, lane, now)))

    def waiting(self) -> list[Ticket]:
        """Return the tickets that do not fly, in the order of their arrival."""
        return [each for each in self.by_id.values() if each.stage is not _IN_FLIGHT]


def why_of(ticket: Ticket, lane: Lane | None, now: float) -> Why:
    """Return the facts of a decision about the ticket, made now; there may be no lane for it."""
    request = ticket.request
    slack_s = ticket.latest_start - now
    waited_s = now - request.arrived_at
    if lane is None:
        waits = ticket.waits_until(now)
        return Why(0.0, ticket.rung, 0.0, 0.0, 0, 0, waited_s, 0, 0, slack_s, 0.0, waits)
    signals = lane.signals
    return Why(
        signals.severity,
        ticket.rung,
        lane.allocator.deficit_tokens(request.traffic_class),
        signals.window,
        sum(each.occupied for each in lane.upstreams),  # the signals are as of the last choice
        signals.waiting,
        waited_s,
        ticket.deferrals,
        ticket.attempts,
        slack_s,
        ticket.service_p50_s,
        ticket.waits_until(now),
        ticket.sent_meanwhile,
    )
