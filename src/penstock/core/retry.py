"""Whether what a provider has not served may be sent again."""

import math

from penstock.core.events import Failed
from penstock.core.lane import Lane
from penstock.core.ticket import Ticket
from penstock.core.upstream.breaker import LONGEST_PAUSE_S


def last_at(ticket: Ticket) -> float:
    """Return before when an attempt beyond the first must have begun."""
    request = ticket.request
    return request.deadline if request.deadline < request.expires_at else request.expires_at


def given_up_at(ticket: Ticket) -> float:
    """Return when a ticket that still waits is refused; inf if it waits for ever."""
    until = last_at(ticket) if ticket.attempts else ticket.request.expires_at
    return ticket.hopeless_at if ticket.hopeless_at < until else until


def give_up_upstream(ticket: Ticket, lane: Lane, event: Failed, now: float) -> bool:
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


def pay(ticket: Ticket, lane: Lane, now: float) -> bool:
    """Take another attempt from the retry budget; False if that has none."""
    if lane.retries.next_at(now=now) > now:
        return False
    lane.retries.spend(now=now)
    ticket.retry_paid = True
    return True


def refused_too_often(ticket: Ticket, max_attempts: int, now: float) -> bool:
    """Return whether refusals at the door end a request: only one that nothing else would end.

    In a storm the head of the queue is the probe every time; it must not pay for that while
    its time-to-live or its deadline lets it wait, nor within the patience of those without any.
    """
    request = ticket.request
    may_wait = request.expires_at < math.inf or now < request.deadline < math.inf
    tried_s = now - request.arrived_at
    return not may_wait and ticket.attempts >= max_attempts and tried_s >= LONGEST_PAUSE_S
