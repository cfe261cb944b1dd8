"""First come, first served within a class."""

from penstock.core.heap_queue import KeyedQueue
from penstock.core.ticket import Ticket


class Fifo(KeyedQueue):
    """The oldest goes first; a returned request keeps its place.

    Source:
        The baseline of every queueing text.

    """

    @staticmethod
    def key(ticket: Ticket) -> float:
        """Return the sequence number."""
        return ticket.request.id
