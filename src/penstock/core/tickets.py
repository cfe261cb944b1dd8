"""Every request on its way: where it is, which timers look at it again, and what it changes."""

import math
from dataclasses import dataclass, field

from penstock.core.backlog import Backlog
from penstock.core.events import Abandoned, Action, Reject, Why
from penstock.core.lane import Lane
from penstock.core.lanes import Lanes
from penstock.core.ticket import Stage, Ticket
from penstock.core.timers import Timers
from penstock.core.upstream.ledger import Upstream
from penstock.errors import ProtocolError

# A module's name is found faster than a member of an Enum, here twice for each event.
_QUEUED, _IN_FLIGHT, _ENDED = Stage.QUEUED, Stage.IN_FLIGHT, Stage.ENDED


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
        signals.occupied,
        signals.waiting,
        waited_s,
        ticket.deferrals,
        ticket.attempts,
        slack_s,
        ticket.service_p50_s,
        ticket.waits_until(now),
        ticket.sent_meanwhile,
    )
