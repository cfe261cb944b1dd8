"""How a request would fare at the upstreams of a model: for whoever may send it to another one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.core.events import RefusalCause
from penstock.core.lane import Lane
from penstock.core.model import Request
from penstock.core.tickets import Tickets
from penstock.core.upstream.ledger import Upstream

Cause = Literal["quota", "rate", "overload", "down"]
DOWN: Cause = "down"
_CAUSES: dict[str, Cause] = {
    RefusalCause.QUOTA: "quota",
    RefusalCause.RATE: "rate",
    RefusalCause.OVERLOAD: "overload",
    RefusalCause.SLOW_FIRST_TOKEN: "overload",
}


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


def outlook_of(tickets: Tickets, request: Request, now: float) -> Outlook | None:
    """Return how a request would fare; None if no upstream serves its model.

    Changes nothing: not even a lane is made, whose order the next decision would show.
    """
    serving = [
        each
        for each in tickets.upstreams.values()
        if request.upstream in ("", each.name) and each.serves(request.model)
    ]
    if not serving:
        return None
    opening = {each.name: _opens_at(each, request.account, now) for each in serving}
    using = [each for each in serving if opening[each.name] <= now] or serving
    p90_tokens = request.estimate.p90_tokens
    service_s = min(each.known_service(request.model).predict_s(p90_tokens) for each in using)
    first = min(using, key=lambda each: opening[each.name])
    pause_s = opening[first.name] - now
    cause = _cause_of(first, request.account, now) if pause_s > 0.0 else None
    lane = tickets.lanes.by_upstreams.get(tuple(each.name for each in serving))
    return Outlook(cause, pause_s + _queue_s(lane, using, service_s), service_s)


def _opens_at(upstream: Upstream, account: str, now: float) -> float:
    return max(upstream.known_breaker(account).send_at(now), upstream.paused_until)


def _cause_of(upstream: Upstream, account: str, now: float) -> Cause:
    if upstream.paused_until > now:
        return DOWN
    return _CAUSES.get(upstream.known_breaker(account).cause, DOWN)


def _queue_s(lane: Lane | None, using: Sequence[Upstream], service_s: float) -> float:
    """Return in how many seconds the work that is there already would be sent and done."""
    window = sum(each.capacity.window for each in using)
    occupied = sum(each.occupied for each in using)
    waiting_s = lane.signals.waiting_work_s if lane is not None else 0.0
    if (not waiting_s and occupied < window) or window == math.inf:
        return 0.0
    flying_s = lane.signals.in_flight_work_s if lane is not None else occupied * service_s
    return (waiting_s + flying_s) / max(1.0, window)
