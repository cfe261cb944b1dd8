"""Windows that only count requests, and the one without an end."""

import math
from typing import Annotated

from penstock.core.policy import CapacityPolicy
from penstock.core.rule import Rule
from penstock.core.ticket import Ticket

Initial = Annotated[float, Rule(low=1)]
Largest = Annotated[float, Rule(low=1, infinite=True)]


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


class MovingWindow(CountingWindow):
    """A window from 1 to `largest`."""

    def __init__(self, initial: float, largest: float) -> None:
        """Start at `initial`.

        Raises:
            ValueError: `largest` is below it.

        """
        rule = Rule(low=initial, infinite=True, why="for it cannot be below initial")
        rule.require(largest=largest)
        self.window = float(initial)
        self._largest = largest

    def _set(self, window: float) -> None:
        self.window = max(1.0, min(self._largest, window))


class Unlimited(CountingWindow):
    """No window: what a program without penstock does, the "direct" row of every table.

    Source:
        The baseline.

    """

    window = math.inf
