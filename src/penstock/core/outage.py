"""What it is worth to wait for upstreams that are closed, all of them, to an account."""

import math
from dataclasses import dataclass

from penstock.core.model import Request
from penstock.core.upstream.breaker import LONGEST_PAUSE_S, CircuitBreaker
from penstock.core.upstream.ledger import Upstream


@dataclass(frozen=True, slots=True)
class Outage:
    """The circuits of one lane's upstreams, taken together."""

    upstreams: tuple[Upstream, ...]

    def no_use(self, request: Request, now: float) -> str:
        """Return why waiting is of no use: "quota", "rate", "upstream", or "" if it may wait.

        Nobody waits for a quota, for a long pause only who has a deadline after its end, and where
        nothing at all is served nobody without a deadline for longer than `LONGEST_PAUSE_S`.
        """
        patience = request.deadline
        if patience == math.inf:
            patience = now + LONGEST_PAUSE_S
            waited_s = min(now - request.arrived_at, self.in_vain_s(request, now))
            if waited_s >= LONGEST_PAUSE_S:
                return "upstream"
        breakers = self._breakers(request)
        for breaker in breakers:
            if breaker.closed_to_some_until <= now:
                return ""
        reason = "quota"
        for breaker in breakers:
            if breaker.exhausted_until <= now:
                if breaker.open_until < min(patience, request.expires_at):
                    return ""
                reason = "rate"
        return reason

    def closings(self, request: Request, now: float) -> tuple[bool, bool]:
        """Return whether all upstreams are closed to some of its like, and all quotas spent."""
        breakers = self._breakers(request)
        return (
            all(breaker.closed_to_some_until > now for breaker in breakers),
            all(breaker.exhausted_until > now for breaker in breakers),
        )

    def open_at(self, request: Request, now: float) -> float:
        """Return when its like may use the first upstream again."""
        return min(breaker.open_at(now) for breaker in self._breakers(request))

    def in_vain_s(self, request: Request, now: float) -> float:
        """Return for how long no upstream has served its like; -inf if one does."""
        return now - max(breaker.nothing_since for breaker in self._breakers(request))

    def again_s(self, request: Request, at: float, now: float) -> float | None:
        """Return in how long what may go again `at` a time is to come again.

        None, which is never, where for most of its wait nothing was served: to come again by
        itself, as an SDK does, would be to wait as long once more.
        """
        in_vain = 2.0 * self.in_vain_s(request, now) > now - request.arrived_at
        return None if in_vain or at == math.inf else at - now

    def _breakers(self, request: Request) -> list[CircuitBreaker]:
        return [upstream.circuit(request) for upstream in self.upstreams]
