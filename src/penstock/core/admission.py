"""Whether a request may wait: asked at its arrival, after each deferral, and when time runs out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from penstock.core.events import Arrived, Defer
from penstock.core.lane import Lane
from penstock.core.model import Request, TrafficClass
from penstock.core.policy import Admit, DeferFor, OverloadPolicy
from penstock.core.ticket import Stage, Ticket, ticket_of
from penstock.core.tickets import Tickets, why_of
from penstock.errors import ProtocolError

DRAIN_RETRY_S = 5.0


@dataclass(slots=True)
class AdmissionControl:
    """Lets requests wait, defers or refuses them.

    Attributes:
        overload: the policy that judges what may wait.
        _inherited: gives a request of a class that is gone to its successor.

    """

    _tickets: Tickets
    overload: OverloadPolicy
    _classes: Mapping[str, TrafficClass]
    _inherited: Callable[[Request], Request]

    def on_arrived(self, event: Arrived, now: float) -> None:
        """Take in a request, and send it at once if it may go."""
        request, tickets = event.request, self._tickets
        if request.id in tickets.by_id:
            raise ProtocolError(f"request {request.id} arrived twice: ids must be unique")
        known = self._classes.get(request.traffic_class)
        if known is None:
            self.on_arrived(Arrived(self._inherited(request)), now)
            return
        lane = tickets.lanes.find(request)
        if lane is None:
            tickets.reject(ticket_of(request, 0.0, 0.0), None, "no_upstream", None, now)
            return
        lane.retries.arrived(now)
        estimate = request.estimate
        p50_s, p90_s = lane.service_s(request.model, estimate.p50_tokens, estimate.p90_tokens)
        ticket = tickets.at_work = ticket_of(request, p50_s, p90_s)
        if known.hopeless == "refuse":
            ticket.hopeless_at = request.deadline - p50_s
        lane.signals.arrived(ticket, now)
        refusal = self._refusal(ticket, lane, now)
        surplus = tickets.backlog.surplus(ticket, turns=lane.tenants is not None)
        if refusal is None and ticket in surplus:
            refusal = "queue_full", lane.retry_after_s(request, now)
        if refusal is not None:
            tickets.reject(ticket, lane, *refusal, now)
            return
        tickets.by_id[request.id] = ticket
        tickets.hold_back(ticket)
        lane.signals.refresh(now)
        self._judge(ticket, lane, now)
        if ticket.stage is not Stage.ENDED:
            for each in surplus:
                self._displace(each, now)
        nested = request.inside is not None
        if nested:
            tickets.lanes.nesting.arrived(ticket, tickets.by_id)
        if nested or (not lane.closed and request.traffic_class not in lane.barred):
            self._tickets.pump(lane, now)

    def _refusal(self, ticket: Ticket, lane: Lane, now: float) -> tuple[str, float | None] | None:
        """Return why a new request is refused unjudged, and after how long it may come again."""
        request = ticket.request
        if self._tickets.draining:
            return "draining", DRAIN_RETRY_S
        if request.expires_at <= now:
            return "expired", None
        if ticket.hopeless_at < now:
            return "hopeless", None
        if lane.is_too_large(ticket):
            return "too_large", None
        if no_use := lane.outage.no_use(request, now):
            return no_use, lane.outage.open_at(request, now) - now
        return None

    def _displace(self, surplus: Ticket, now: float) -> None:
        """Refuse what a tenant has waiting beyond its part of a full queue."""
        request = surplus.request
        retry_after_s = self._tickets.lanes.of(request).retry_after_s(request, now)
        self._tickets.refuse(surplus, "queue_full", retry_after_s, now)

    def on_timers(self, due: float, now: float) -> None:
        """Look at the tickets whose timers were due by `due`; without any, change nothing.

        A timer's `earliest` may be that of a cancelled one, and going on because of it would make
        decisions depend on how often `Scheduler.next_wakeup` was asked.
        """
        tickets = self._tickets
        expired, returning = tickets.expiry.pop_due(now=due), tickets.deferred.pop_due(now=due)
        if not expired and not returning:
            return
        for id_ in expired:
            self._give_up(tickets.by_id[id_], now)
        for id_ in returning:
            ticket = tickets.by_id.get(id_)
            if ticket is None:  # expired at the same time
                continue
            tickets.at_work = ticket
            lane = tickets.lanes.of(ticket.request)
            lane.signals.refresh(now)
            if ticket.held_by == "backoff":
                lane.push(ticket, now)
            else:
                self._judge(ticket, lane, now)
        self._tickets.pump_all(now)

    def on_draining(self, now: float) -> None:
        """Refuse what waits, and all that arrives from now on."""
        tickets = self._tickets
        tickets.draining = True
        for ticket in tickets.waiting():
            tickets.refuse(ticket, "draining", DRAIN_RETRY_S, now)

    def _judge(self, ticket: Ticket, lane: Lane, now: float) -> None:
        verdict = self.overload.judge(ticket, lane.signals, now=now)
        if isinstance(verdict, Admit):
            lane.push(ticket, now)
        elif isinstance(verdict, DeferFor):
            why = why_of(ticket, lane, now)
            ticket.deferrals += 1
            until = now + verdict.delay_s
            self._tickets.defer(ticket, "deferral", until, now)
            self._tickets.actions.append(Defer(ticket.request, until, verdict.reason, why))
        else:
            self._tickets.end(ticket)
            self._tickets.reject(ticket, lane, verdict.reason, verdict.retry_after_s, now)

    def _give_up(self, late: Ticket, now: float) -> None:
        if late.request.expires_at <= now:
            self._tickets.refuse(late, "expired", None, now)
        elif late.hopeless_at <= now:
            self._tickets.refuse(late, "hopeless", None, now)
        else:  # too late for another attempt: the last answer stands
            outage, request = self._tickets.lanes.of(late.request).outage, late.request
            open_at = outage.open_at(request, now)
            self._tickets.refuse(late, "upstream", outage.again_s(request, open_at, now), now)
