"""What is known of one account at one upstream: a key's circuit, limits and learnt rate."""

import math
from dataclasses import dataclass, field

from penstock.core.events import LimitsSeen, Throttled
from penstock.core.ticket import Ticket
from penstock.core.upstream.breaker import LONGEST_PAUSE_S, CircuitBreaker
from penstock.core.upstream.rate import LearntRate
from penstock.core.upstream.upstream_limits import UpstreamLimits

ACCOUNTS_LIMIT = 1024
"""So many keys are told apart at one upstream; of more, the longest unused is forgotten."""


@dataclass(slots=True)
class Account:
    """One key's standing: where callers bring their own, one key's refusals pause nobody else."""

    breaker: CircuitBreaker
    limits: UpstreamLimits
    rate: LearntRate = field(default_factory=LearntRate)
    _paced_by: str = ""

    def paused_to(self, now: float) -> float:
        """Return when the circuit lets the next attempt through; `now` if at once."""
        breaker = self.breaker
        if breaker.half_open or breaker.open_until > now:
            return breaker.send_at(now)
        return now

    def paced_to(self, now: float) -> float:
        """Return when the learnt rate lets the next attempt through; `now` if at once."""
        return self.rate.open_at(now=now) if self.rate.per_s < math.inf else now

    def lift(self, now: float) -> None:
        """Close the circuit, and forget the rate that sends were held to."""
        self.breaker.lift(now)
        self.rate = LearntRate()

    def learn(self, seen: LimitsSeen, *, now: float) -> None:
        """Adopt limits that the upstream states; they make a learnt rate superfluous."""
        self.limits.learn(seen, now=now)
        if self.rate.per_s < math.inf and self.limits.states_requests(self._paced_by):
            self.rate = LearntRate()

    def learn_rate(self, ticket: Ticket, event: Throttled, *, now: float) -> bool:
        """Return whether a refusal for the rate came of a rate that nobody states, and learn it."""
        model = ticket.request.model
        if self.limits.states_requests(model):
            return False
        wait_s = event.retry_after_s or 0.0
        if wait_s > LONGEST_PAUSE_S or not self.rate.refused(ticket.sent_before, wait_s, now=now):
            return False
        self._paced_by = model
        self.breaker.succeeded(sent_at=now)  # what went before it has passed
        return True
