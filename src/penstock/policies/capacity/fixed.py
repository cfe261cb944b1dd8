"""A window that does not move."""

import math

from penstock.core.events import RefusalCause
from penstock.core.policy import Reply
from penstock.core.service_time import ServiceTime
from penstock.core.ticket import Ticket


class Fixed:
    """At most `window` requests, and `window_tokens` predicted tokens, in flight.

    A request above the whole token window goes when nothing else flies, or it would never go.

    Source:
        The static window of every connection pool.

    """

    def __init__(self, *, window: float = 8, window_tokens: float = math.inf) -> None:
        """Fix the window.

        Raises:
            ValueError: a window below 1 lets nothing through.

        """
        if not window >= 1 or not window_tokens >= 1:
            raise ValueError(
                f"window={window!r}, window_tokens={window_tokens!r}: below 1 nothing is ever sent"
            )
        self.window = window
        self._window_tokens = window_tokens

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Say whether one more fits."""
        if in_flight >= self.window:
            return False
        if ticket is None or not in_flight:
            return True
        return tokens + ticket.cost_tokens <= self._window_tokens

    def on_dispatch(
        self, ticket: Ticket, service: ServiceTime, in_flight: int, *, now: float
    ) -> None:
        """Learn nothing."""

    def on_landing(self, ticket: Ticket, in_flight: int, *, now: float) -> None:
        """Learn nothing."""

    def on_first_token(self, ticket: Ticket, service: ServiceTime, *, now: float) -> None:
        """Learn nothing."""

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Learn nothing."""

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Learn nothing."""
