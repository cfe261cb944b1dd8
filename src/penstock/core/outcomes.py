"""What became of an attempt: what it teaches, and whether the request is sent again."""

import math
from dataclasses import dataclass

from penstock.core.backoff import REQUEST_BASE_S, REQUEST_CAP_S, backoff_s
from penstock.core.events import (
    Cancelled,
    Completed,
    Failed,
    FirstToken,
    RefusalCause,
    Throttled,
)
from penstock.core.lane import Lane
from penstock.core.ticket import Stage, Ticket
from penstock.core.tickets import Tickets
from penstock.core.upstream.breaker import LONGEST_PAUSE_S

_IN_FLIGHT = Stage.IN_FLIGHT

CROSSING_S = 1.0
"""A reused connection that ends so soon after a request, with no byte of an answer, was most likely
closed before the request came: the two crossed on the way. It is long for that, as on a machine
with nothing to spare each side is told late; what breaks at work on a request takes longer still.
"""


@dataclass(slots=True)
class Outcomes:
    """Takes in how attempts went.

    Attributes:
        max_attempts: after so many a request is not sent again.

    """

    _tickets: Tickets
    max_attempts: int

    def on_first_token(self, event: FirstToken, now: float) -> None:
        """Note that a reply has begun; half-open circuits and windows open further by it."""
        tickets = self._tickets
        ticket = tickets.flying(event.request_id, "FirstToken")
        upstream = tickets.upstreams[ticket.upstream]
        upstream.first_token(ticket, now=now)
        self._tickets.pump_sharing(ticket.upstream, now)

    def on_completed(self, event: Completed, now: float) -> None:
        """End a request that was served."""
        tickets = self._tickets
        ticket = tickets.flying(event.request_id, "Completed")
        lane = tickets.landed(ticket)
        signals = lane.signals
        ratio = tickets.upstreams[ticket.upstream].complete(
            ticket, event, waiting=signals.waiting > 0, now=now
        )
        if event.output_tokens is not None:
            lane.settle(ticket, event.output_tokens - ticket.cost_tokens)
        if ratio == ratio:  # not nan
            signals.replied(ticket, ratio, now)
        tickets.end(ticket)
        self._tickets.pump_sharing(ticket.upstream, now)

    def on_throttled(self, event: Throttled, now: float) -> None:
        """Let a request that the provider refused wait for another attempt, or end it."""
        tickets = self._tickets
        ticket = tickets.flying(event.request_id, "Throttled")
        lane = tickets.landed(ticket)
        upstream = tickets.upstreams[ticket.upstream]
        sharing = tickets.lanes.of_upstream[upstream.name]
        request = ticket.request
        before = [each.outage.closings(request, now) for each in sharing]
        upstream.refuse(ticket, event, now=now)
        lane.settle(ticket, -ticket.cost_tokens)
        retry_at = lane.retry_at(ticket, now)
        hopeless = (
            retry_at >= ticket.last_at
            or lane.outage.no_use(ticket.request, now)
            or _refused_too_often(ticket, event, self.max_attempts, now)
        )
        if not event.retryable:
            tickets.end(ticket)
        elif hopeless or tickets.draining:
            tickets.end(ticket)
            again_s = lane.outage.again_s(ticket.request, retry_at, now)
            tickets.reject(ticket, lane, "upstream", again_s, now)
        else:
            tickets.hold_back(ticket)
            lane.push(ticket, now)
        for each, closings in zip(sharing, before, strict=True):
            in_vain = each.outage.in_vain_s(request, now) >= LONGEST_PAUSE_S
            if in_vain or each.outage.closings(request, now) > closings:
                self._fail_fast(each, request.account, now)
        self._tickets.pump_sharing(upstream.name, now)

    def on_failed(self, event: Failed, now: float) -> None:
        """Let a request whose attempt broke wait for another attempt, or end it."""
        tickets = self._tickets
        ticket = tickets.flying(event.request_id, "Failed")
        lane = tickets.landed(ticket)
        crossed = event.reused and now - ticket.dispatched_at <= CROSSING_S and not ticket.crossed
        ticket.crossed = ticket.crossed or crossed
        upstream_fault = event.upstream_fault and not crossed
        tickets.upstreams[ticket.upstream].fail(
            ticket, upstream_fault=upstream_fault, jitter=event.jitter, now=now
        )
        lane.settle(ticket, -ticket.cost_tokens)
        until = now + backoff_s(
            ticket.attempts, event.jitter, base_s=REQUEST_BASE_S, cap_s=REQUEST_CAP_S
        )
        elsewhere = upstream_fault and _give_up_upstream(ticket, lane, event, now)
        if crossed or (elsewhere and not event.reached):
            until = now
        again = (
            event.retryable
            and not tickets.draining
            and ticket.attempts < self.max_attempts
            and until < ticket.last_at
            and not lane.outage.no_use(ticket.request, now)
        )
        if again and (crossed or elsewhere or _pay(ticket, lane, now)):
            if crossed:
                ticket.retry_paid = True
            elif elsewhere and event.reached:
                lane.retries.go_elsewhere(now=now)
            tickets.hold_back(ticket)
            if until > now:
                tickets.defer(ticket, "backoff", until, now)
            else:
                lane.push(ticket, now)
        else:
            tickets.end(ticket)
            if event.retryable:
                open_at = lane.outage.open_at(ticket.request, now)
                tickets.reject(ticket, lane, "upstream", open_at - now, now)
        self._tickets.pump_sharing(ticket.upstream, now)

    def on_cancelled(self, event: Cancelled, now: float) -> None:
        """End a request whose caller has left."""
        tickets = self._tickets
        ticket = tickets.by_id.get(event.request_id)
        if ticket is None:  # it had ended: the caller could not know
            return
        tickets.at_work = ticket
        lane = tickets.lanes.of(ticket.request)
        if ticket.stage is _IN_FLIGHT:
            tickets.landed(ticket)
            tickets.upstreams[ticket.upstream].left(ticket, now=now)
        tickets.abandon(ticket, now)
        if ticket.upstream:
            self._tickets.pump_sharing(ticket.upstream, now)
        self._tickets.pump(lane, now)

    def _fail_fast(self, lane: Lane, account: str, now: float) -> None:
        """Refuse what waits for upstreams that are closed beyond its own patience."""
        for ticket in self._tickets.waiting():
            request = ticket.request
            if request.account != account or self._tickets.lanes.of(request) is not lane:
                continue
            if no_use := lane.outage.no_use(request, now):
                open_at = lane.outage.open_at(request, now)
                again_s: float | None = open_at - now
                if no_use == "upstream":
                    again_s = lane.outage.again_s(request, open_at, now)
                self._tickets.refuse(ticket, no_use, again_s, now)


def _give_up_upstream(ticket: Ticket, lane: Lane, event: Failed, now: float) -> bool:
    """Note that an attempt broke at its upstream; return whether it may go to a sound one.

    What never reached a provider may go round all of them; anything else moves once.
    """
    if ticket.upstream in ticket.failed_at:
        return False
    ticket.failed_at += (ticket.upstream,)
    if not lane.has_refuge(ticket, now):
        return False
    return not event.reached or (
        len(ticket.failed_at) == 1 and lane.retries.may_go_elsewhere(now=now)
    )


def _pay(ticket: Ticket, lane: Lane, now: float) -> bool:
    """Take another attempt from the retry budget; False if that has none."""
    if lane.retries.next_at(now=now) > now:
        return False
    lane.retries.spend(now=now)
    ticket.retry_paid = True
    return True


def _refused_too_often(ticket: Ticket, event: Throttled, max_attempts: int, now: float) -> bool:
    """Return whether refusals at the door end a request: only one that nothing else would end.

    Silence is none at the door: what was silent may have worked, and been paid for.

    In a storm the head of the queue is the probe every time; it must not pay for that while
    its time-to-live or its deadline lets it wait, nor within the patience of those without any.
    """
    request = ticket.request
    may_wait = request.expires_at < math.inf or now < request.deadline < math.inf
    spares = not may_wait and now - request.arrived_at >= LONGEST_PAUSE_S
    ends = spares or event.cause is RefusalCause.SLOW_FIRST_TOKEN
    return ends and ticket.attempts >= max_attempts
