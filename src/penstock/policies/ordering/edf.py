"""Earliest deadline first."""

from penstock.core.heap_queue import KeyedQueue
from penstock.core.ticket import Ticket


class EarliestDeadlineFirst(KeyedQueue):
    """The request that is due first goes first, whether it can make it or not.

    Source:
        Liu & Layland, JACM 20(1), 1973.

    """

    @staticmethod
    def key(ticket: Ticket) -> float:
        """Return the deadline, in driver seconds."""
        return ticket.request.deadline
