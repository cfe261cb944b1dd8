"""Windows that only count requests, and the one without an end."""

import math

from penstock.core.policy import CapacityPolicy
from penstock.core.ticket import Ticket


class CountingWindow(CapacityPolicy):
    """At most `window` requests in flight; subclasses say how replies move it."""

    window: float = 1.0
    because = "reply"

    @property
    def evidence(self) -> dict[str, float]:
        """Return nothing: the reply's latency is in the log already."""
        return {}

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Say whether one more fits; one always may go."""
        return in_flight < self.window or in_flight < 1


class Unlimited(CountingWindow):
    """No window: what a program without penstock does, the "direct" row of every table.

    Source:
        The baseline.

    """

    window = math.inf
