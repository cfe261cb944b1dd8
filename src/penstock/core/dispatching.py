"""Sends what may go now: the step that ends nearly every event."""

import math

from penstock.core.events import Dispatch
from penstock.core.lane import Lane
from penstock.core.ticket import Stage
from penstock.core.tickets import Tickets, why_of

_IN_FLIGHT = Stage.IN_FLIGHT


class Dispatcher:
    """Sends tickets upstream for as long as a lane has one that may go."""

    __slots__ = ("_tickets",)

    def __init__(self, tickets: Tickets) -> None:
        """Send these."""
        self._tickets = tickets

    def pump(self, lane: Lane, now: float) -> None:
        """Send everything in a lane that may go now."""
        tickets, signals = self._tickets, lane.signals
        nesting = tickets.lanes.nesting
        tickets.at_work = None
        while signals.waiting:
            chosen = lane.next(now)
            if chosen is None and nesting.places:
                chosen = nesting.next(lane, now)
            if chosen is None:
                return
            ticket, upstream = chosen
            tickets.at_work = ticket
            request = ticket.request
            lane.take(ticket, now)
            tickets.backlog.leave(ticket)
            ticket.hold("", now)
            lane.charge(ticket)
            why = why_of(ticket, lane, now)
            if ticket.attempts:
                breaker = upstream.account(request.account).breaker
                if breaker.troubled and not ticket.retry_paid:
                    lane.retries.spend(now=now)
                ticket.retry_paid = False
                tickets.expiry.cancel(request.id)
            upstream.depart(ticket, now)
            signals.departed(ticket)
            ticket.stage = _IN_FLIGHT
            if request.expires_at < math.inf or ticket.hopeless_at < math.inf:
                tickets.expiry.cancel(request.id)
            if lane.homes is not None and request.session:
                lane.homes.put(request.session, upstream.name)
            tickets.actions.append(Dispatch(request, upstream.name, why))
            tickets.at_work = None
        lane.emptied()

    def pump_sharing(self, upstream: str, now: float) -> None:
        """Do so in each lane that an upstream serves."""
        for lane in self._tickets.lanes.of_upstream[upstream]:
            self.pump(lane, now)

    def pump_all(self, now: float) -> None:
        """Do so in each lane."""
        for lane in self._tickets.lanes:
            self.pump(lane, now)
