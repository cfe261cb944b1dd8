"""Shortest predicted job first."""

from penstock.core.heap_queue import KeyedQueue
from penstock.core.ticket import Ticket


class ShortestFirst(KeyedQueue):
    """The request with the smallest predicted median goes first; long ones may starve.

    Source:
        Schrage & Miller, Operations Research 14(4), 1966, without preemption.

    """

    @staticmethod
    def key(ticket: Ticket) -> float:
        """Return the predicted median length, in tokens."""
        return ticket.request.estimate.p50_tokens
