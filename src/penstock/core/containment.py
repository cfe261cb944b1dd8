"""When something inside raises half-way: one request ends, and every ledger agrees again."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from penstock.core import retry
from penstock.core.backlog import Backlog
from penstock.core.events import (
    Action,
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
from penstock.core.lane import Lane
from penstock.core.lanes import Lanes
from penstock.core.ticket import Stage, Ticket, ticket_of
from penstock.core.timers import Timers
from penstock.core.upstream.ledger import Upstream
from penstock.core.why import why_of

FAULTS_KEPT = 16
FAULT_RETRY_S = 1.0
"""After two faults in a row a lane is left alone that long."""


@dataclass(slots=True)
class Containment:
    """What has to be put in order after a policy or a fit has raised in the middle of an event.

    Attributes:
        seen: how often something has raised so far.

    """

    tickets: dict[int, Ticket]
    lanes: Lanes
    upstreams: dict[str, Upstream]
    backlog: Backlog
    deferred: Timers
    expiry: Timers
    seen: int = 0
    _kept: deque[Exception] = field(default_factory=lambda: deque(maxlen=FAULTS_KEPT))

    def take(self) -> Sequence[Exception]:
        """Return what was raised since the last time, the last `FAULTS_KEPT` at most."""
        if not self._kept:
            return ()
        faults = tuple(self._kept)
        self._kept.clear()
        return faults

    def knows(self, request_id: int, actions: list[Action]) -> bool:
        """Say whether a request has a ticket or an answer."""
        return request_id in self.tickets or any(
            not isinstance(action, WindowMoved) and action.request.id == request_id
            for action in actions
        )

    def end(
        self,
        fault: Exception,
        ticket: Ticket | None,
        event: Event,
        actions: list[Action],
        now: float,
    ) -> None:
        """End the ticket that was being handled, if any, and count all ledgers anew.

        Its caller gets a `Reject` with the reason "fault", unless the event is the end itself. A
        request in flight of which only the first token could not be noted flies on.
        """
        self._note(fault)
        if ticket is not None and not isinstance(event, FirstToken):
            self._end(ticket, event, actions, now)
        for each, problem in self._recount(now):
            self._note(problem)
            self.backlog.leave(each)
            self._end(each, Woke(), actions, now)

    def contain(
        self,
        event: Event,
        fault: Exception,
        at_work: Callable[[], Ticket | None],
        pump: Callable[[Lane, float], None],
        actions: list[Action],
        now: float,
    ) -> None:
        """End the one request that was being handled, and let the others go on."""
        ticket = at_work()
        if isinstance(event, Arrived) and not self.knows(event.request.id, actions):
            ticket = ticket_of(event.request, 0.0, 0.0)  # it fell before there was one
        self.end(fault, ticket, event, actions, now)
        for lane in self.lanes:
            try:
                pump(lane, now)
            except Exception as again:  # noqa: BLE001 - kept, and looked at again in a moment
                self.end(again, at_work(), Woke(), actions, now)
                lane.wake_at = now + FAULT_RETRY_S

    def _note(self, fault: Exception) -> None:
        self._kept.append(fault)
        self.seen += 1

    def _end(self, ticket: Ticket, event: Event, actions: list[Action], now: float) -> None:
        id_ = ticket.request.id
        over = isinstance(event, Completed | Cancelled) or (
            isinstance(event, Failed) and not event.retryable
        )
        answered = id_ not in self.tickets and self.knows(id_, actions)
        if ticket.upstream:
            try:
                self.upstreams[ticket.upstream].abandon(ticket, now=now)
            except Exception as again:  # noqa: BLE001 - noted; the ledger is counted anew
                self._note(again)
        self.tickets.pop(id_, None)
        self.deferred.cancel(id_)
        self.expiry.cancel(id_)
        ticket.stage = Stage.ENDED
        self.lanes.nesting.ended(ticket)
        if not answered and not (over and getattr(event, "request_id", None) == id_):
            actions.append(Reject(ticket.request, "fault", None, why_of(ticket, None, now)))

    def _recount(self, now: float) -> list[tuple[Ticket, Exception]]:
        """Count all that is derived from the tickets; return those that no queue takes, and why.

        Queues and allocators start afresh: whichever raised, nobody knows what it had done by
        then. Credits and debts of classes and tenants are forgotten, windows and fits are kept.
        No ticket is left without the timer that looks at it again.
        """
        for lane in self.lanes:
            self.lanes.renew(lane)
        flying: dict[str, list[Ticket]] = {name: [] for name in self.upstreams}
        self.backlog.clear()
        refused: list[tuple[Ticket, Exception]] = []
        for ticket in list(self.tickets.values()):
            lane = self.lanes.of(ticket.request)
            if ticket.stage is Stage.IN_FLIGHT:
                flying[ticket.upstream].append(ticket)
                lane.signals.departed(ticket)
                continue
            self.backlog.enter(ticket)
            until = retry.given_up_at(ticket)
            if until < math.inf:
                self.expiry.set(ticket.request.id, until)
            if ticket.stage is Stage.DEFERRED and ticket.request.id in self.deferred:
                continue
            try:
                lane.push(ticket, now)
            except Exception as fault:  # noqa: BLE001 - returned: the caller ends the ticket
                refused.append((ticket, fault))
        for name, upstream in self.upstreams.items():
            upstream.recount(flying[name])
        return refused
