"""A window that does not move."""

import math
from typing import Annotated

from penstock.core.rule import Rule
from penstock.core.ticket import Ticket
from penstock.policies.capacity.counting import CountingWindow

_Window = Annotated[
    float,
    Rule(low=1, whole=True, why="for below 1 nothing is ever sent; `unlimited` has no window"),
]
_WindowTokens = Annotated[float, Rule(low=1, infinite=True, why="for below 1 nothing is ever sent")]


class Fixed(CountingWindow):
    """At most `window` requests, and `window_tokens` predicted tokens, in flight.

    A request above the whole token window goes when nothing else flies, or it would never go.

    Source:
        The static window of every connection pool.

    """

    def __init__(self, *, window: _Window = 8, window_tokens: _WindowTokens = math.inf) -> None:
        """Fix the window."""
        self.window = window
        self._window_tokens = window_tokens

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Return whether one more fits."""
        if in_flight >= self.window:
            return False
        if ticket is None or not in_flight:
            return True
        return tokens + ticket.cost_tokens <= self._window_tokens
