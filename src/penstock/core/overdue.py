"""Flights whose reply should be here by now: replies come too late to warn of a queue."""

import math
from heapq import heappop, heappush

RATIO, SLOP_S = 1.5, 0.1
MORE_PATIENCE, LESS_PATIENCE, MOST_PATIENCE = 1.5, 0.8, 16.0


class Overdue:
    """Calls a flight overdue after some times the time expected of it.

    How many times is learnt: an overdue one that turns out to have been long, and not to have
    waited, is a reason for more patience; one that did wait, for less.

    Attributes:
        next_at: when there will be something to take; infinity if never.

    Source:
        Ours.

    """

    def __init__(self) -> None:
        """Start with little patience."""
        self._patience = RATIO
        self._due: list[tuple[float, int, float, float]] = []
        self.next_at = math.inf

    def sent(self, request_id: int, expected_s: float, *, now: float) -> None:
        """Enter a flight and the time that it may take, in seconds."""
        due_at = now + self._patience * expected_s + SLOP_S
        heappush(self._due, (due_at, request_id, now, expected_s))
        self.next_at = self._due[0][0]

    def take(self) -> tuple[int, float, float, float]:
        """Take out the next, and return its id, time of dispatch, expected and waited seconds."""
        due_at, request_id, sent_at, expected_s = heappop(self._due)
        self.next_at = self._due[0][0] if self._due else math.inf
        return request_id, sent_at, expected_s, due_at - sent_at - SLOP_S - expected_s

    def ended(self, *, waited: bool) -> None:
        """Learn from an overdue flight whose reply is here."""
        patience = self._patience * (LESS_PATIENCE if waited else MORE_PATIENCE)
        self._patience = min(MOST_PATIENCE, max(RATIO, patience))
