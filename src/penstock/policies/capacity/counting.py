"""Windows that only count requests, and the one without an end."""

import math
from typing import Annotated

from penstock.core.policy import CapacityPolicy
from penstock.core.rule import Rule
from penstock.core.ticket import Ticket

Initial = Annotated[float, Rule(low=1)]
Largest = Annotated[float, Rule(low=1, infinite=True)]


def require_above(initial: float, largest: float) -> None:
    """Refuse a largest window below the first one.

    Raises:
        ValueError: it is.

    """
    Rule(low=initial, infinite=True, why="for it cannot be below initial").require(largest=largest)


class CountingWindow(CapacityPolicy):
    """At most `window` requests in flight; subclasses say how replies move it."""

    window: float = 1.0
    because = "reply"

    @property
    def evidence(self) -> dict[str, float]:
        """Return nothing: the reply's latency is in the log already."""
        return {}

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Return whether one more fits; one always may go."""
        return in_flight < self.window or in_flight < 1


class Unlimited(CountingWindow):
    """No window: what a program without penstock does, the "direct" row of every table.

    Source:
        The baseline.

    """

    window = math.inf
