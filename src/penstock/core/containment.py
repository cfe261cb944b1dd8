"""When something inside raises half-way: one request ends, and every ledger agrees again."""

from collections import deque
from dataclasses import dataclass, field

from penstock.core.events import (
    Abandoned,
    Arrived,
    Cancelled,
    Completed,
    Event,
    Failed,
    FirstToken,
    Reject,
    WindowMoved,
    Woke,
)
from penstock.core.ticket import Stage, Ticket, ticket_of
from penstock.core.tickets import Tickets, why_of

FAULTS_KEPT = 16
FAULT_RETRY_S = 1.0
"""After two faults in a row a lane is left alone that long."""


@dataclass(slots=True)
class Containment:
    """What has to be put in order after a policy or a fit has raised in the middle of an event.

    Attributes:
        seen: how often something has raised so far.
        faults: what was raised, the last `FAULTS_KEPT` at most; who reports them takes them out.

    """

    tickets: Tickets
    seen: int = 0
    faults: deque[Exception] = field(default_factory=lambda: deque(maxlen=FAULTS_KEPT))

    def contain(self, event: Event, fault: Exception, now: float) -> None:
        """End the one request that was being handled, and let the others go on.

        Its caller gets a `Reject` with the reason "fault", unless the event is the end itself. A
        request in flight of which only the first token could not be noted flies on.
        """
        ticket = self.tickets.at_work
        if isinstance(event, Arrived) and not self._knows(event.request.id):
            ticket = ticket_of(event.request, 0.0, 0.0)  # it fell before there was one
        self._restore(fault, ticket, event, now)
        for lane in self.tickets.lanes:
            try:
                self.tickets.pump(lane, now)
            except Exception as again:  # noqa: BLE001 - kept, and looked at again in a moment
                self._restore(again, self.tickets.at_work, Woke(), now)
                lane.wake_at = now + FAULT_RETRY_S

    def _knows(self, request_id: int) -> bool:
        """Return whether a request has a ticket or an answer."""
        return request_id in self.tickets.by_id or any(
            not isinstance(action, WindowMoved) and action.request.id == request_id
            for action in self.tickets.actions
        )

    def _restore(self, fault: Exception, ticket: Ticket | None, event: Event, now: float) -> None:
        """End the ticket that was being handled, if any, and count all ledgers anew."""
        self._note(fault)
        if ticket is not None and not isinstance(event, FirstToken):
            self._end(ticket, event, now)
        for each, problem in self._recount(now):
            self._note(problem)
            self.tickets.backlog.leave(each)
            self._end(each, Woke(), now)

    def _note(self, fault: Exception) -> None:
        self.faults.append(fault)
        self.seen += 1

    def _end(self, ticket: Ticket, event: Event, now: float) -> None:
        id_, tickets = ticket.request.id, self.tickets
        over = isinstance(event, Completed | Cancelled) or (
            isinstance(event, Failed) and not event.retryable
        )
        answered = id_ not in tickets.by_id and self._knows(id_)
        waited = ticket.stage is not Stage.IN_FLIGHT
        if ticket.upstream:
            try:
                tickets.upstreams[ticket.upstream].abandon(ticket, now=now)
            except Exception as again:  # noqa: BLE001 - noted; the ledger is counted anew
                self._note(again)
        tickets.by_id.pop(id_, None)
        tickets.deferred.cancel(id_)
        tickets.expiry.cancel(id_)
        ticket.stage = Stage.ENDED
        tickets.lanes.nesting.ended(ticket)
        if answered:
            return
        why = why_of(ticket, None, now)
        if not (over and getattr(event, "request_id", None) == id_):
            tickets.actions.append(Reject(ticket.request, "fault", None, why))
        elif waited:
            tickets.actions.append(Abandoned(ticket.request, why))

    def _recount(self, now: float) -> list[tuple[Ticket, Exception]]:
        """Count all that is derived from the tickets; return those that no queue takes, and why.

        Queues and allocators start afresh: whichever raised, nobody knows what it had done by
        then. Credits and debts of classes and tenants are forgotten, windows and fits are kept.
        No ticket is left without the timer that looks at it again.
        """
        tickets, lanes = self.tickets, self.tickets.lanes
        for lane in lanes:
            lanes.renew(lane)
        flying: dict[str, list[Ticket]] = {name: [] for name in tickets.upstreams}
        tickets.backlog.clear()
        refused: list[tuple[Ticket, Exception]] = []
        for ticket in list(tickets.by_id.values()):
            lane = lanes.of(ticket.request)
            if ticket.stage is Stage.IN_FLIGHT:
                flying[ticket.upstream].append(ticket)
                lane.signals.departed(ticket)
                continue
            tickets.hold_back(ticket)
            if ticket.stage is Stage.DEFERRED and ticket.request.id in tickets.deferred:
                continue
            try:
                lane.push(ticket, now)
            except Exception as fault:  # noqa: BLE001 - returned: the caller ends the ticket
                refused.append((ticket, fault))
        for name, upstream in tickets.upstreams.items():
            upstream.recount(flying[name])
        return refused
