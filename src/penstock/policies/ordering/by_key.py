"""Orderings that are nothing but a key which does not change while a request waits."""

import heapq
from abc import ABC, abstractmethod

from penstock.core.ticket import Ticket


class HeapQueue:
    """Waiting tickets by a key that does not change while they wait.

    O(log n) to push and to take the head; a ticket taken from the middle stays behind as a
    tombstone until it surfaces, or until tombstones are the majority.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._heap: list[tuple[float, int, Ticket]] = []
        self._members: dict[int, Ticket] = {}

    def push(self, key: float, ticket: Ticket) -> None:
        """Take in a ticket; ties end in the request's sequence number."""
        id_ = ticket.request.id
        self._members[id_] = ticket
        heapq.heappush(self._heap, (key, id_, ticket))

    def head(self) -> Ticket | None:
        """Return the ticket with the smallest key, or None."""
        heap, members = self._heap, self._members
        while heap:
            entry = heap[0]
            if members.get(entry[1]) is entry[2]:
                return entry[2]
            heapq.heappop(heap)
        return None

    def discard(self, ticket: Ticket) -> bool:
        """Remove a ticket if it is here; say whether it was."""
        id_ = ticket.request.id
        if self._members.pop(id_, None) is None:
            return False
        heap = self._heap
        if heap[0][1] == id_:
            heapq.heappop(heap)
        elif len(heap) > 2 * len(self._members) + 64:
            self._heap = [entry for entry in heap if entry[1] in self._members]
            heapq.heapify(self._heap)
        return True

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._members)


class KeyedQueue(ABC):
    """A queue by key: subclasses say which."""

    def __init__(self) -> None:
        """Start empty."""
        self._heap = HeapQueue()

    @staticmethod
    @abstractmethod
    def key(ticket: Ticket) -> float:
        """Return what the ticket is ordered by, smallest first."""

    def push(self, ticket: Ticket, *, now: float) -> None:
        """Take in a ticket."""
        self._heap.push(self.key(ticket), ticket)

    def head(self, *, now: float) -> Ticket | None:
        """Return the ticket that goes next."""
        return self._heap.head()

    def take(self, ticket: Ticket, *, now: float) -> None:
        """Remove a ticket."""
        self._heap.discard(ticket)

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._heap)


class OldestFirst(KeyedQueue):
    """First come, first served within a class; a returned request keeps its place.

    Source:
        The baseline of every queueing text.

    """

    @staticmethod
    def key(ticket: Ticket) -> float:
        """Return the sequence number."""
        return ticket.request.id


class EarliestDeadlineFirst(KeyedQueue):
    """The request that is due first goes first, whether it can make it or not.

    Source:
        Liu & Layland, JACM 20(1), 1973.

    """

    @staticmethod
    def key(ticket: Ticket) -> float:
        """Return the deadline, in driver seconds."""
        return ticket.request.deadline


class ShortestFirst(KeyedQueue):
    """The request with the smallest predicted median goes first; long ones may starve.

    Source:
        Schrage & Miller, Operations Research 14(4), 1966, without preemption.

    """

    @staticmethod
    def key(ticket: Ticket) -> float:
        """Return the predicted median length, in tokens."""
        return ticket.request.estimate.p50_tokens
