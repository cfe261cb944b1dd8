"""What a decision stood on."""

from penstock.core.events import Why
from penstock.core.lane import Lane
from penstock.core.ticket import Ticket


def why_of(ticket: Ticket, lane: Lane | None, now: float) -> Why:
    """Return the facts of a decision about the ticket, made now; there may be no lane for it."""
    request = ticket.request
    slack_s = ticket.latest_start - now
    waited_s = now - request.arrived_at
    if lane is None:
        return Why(0.0, ticket.rung, 0.0, 0.0, 0, 0, waited_s, 0, 0, slack_s, 0.0, ticket.waits)
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
        ticket.waits.copy(),
    )
