"""A window that does not move."""

import math

from penstock.core.rule import Rule
from penstock.core.ticket import Ticket
from penstock.policies.capacity.counting import CountingWindow

_WINDOW = Rule(low=1, whole=True, why="for below 1 nothing is ever sent; `unlimited` has no window")
_TOKENS = Rule(low=1, infinite=True, why="for below 1 nothing is ever sent")


class Fixed(CountingWindow):
    """At most `window` requests, and `window_tokens` predicted tokens, in flight.

    A request above the whole token window goes when nothing else flies, or it would never go.

    Source:
        The static window of every connection pool.

    """

    def __init__(self, *, window: float = 8, window_tokens: float = math.inf) -> None:
        """Fix the window.

        Raises:
            ValueError: a window below 1 lets nothing through, and half a request cannot fly.

        """
        _WINDOW.require(window=window)
        _TOKENS.require(window_tokens=window_tokens)
        self.window = window
        self._window_tokens = window_tokens

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Say whether one more fits."""
        if in_flight >= self.window:
            return False
        if ticket is None or not in_flight:
            return True
        return tokens + ticket.cost_tokens <= self._window_tokens
