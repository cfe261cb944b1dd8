"""A class's queue in which tickets that others need not wait for are parked."""

from collections.abc import Callable

from penstock.core.policy import OrderedQueue
from penstock.core.ticket import Ticket


def kind_of(ticket: Ticket) -> str:
    """Return what a ticket shares with those that the same limits and pauses hold back."""
    request = ticket.request
    return f"{request.account}\0{request.model}" if request.account else request.model


class ParkingQueue:
    """One queue for all, one beside it for each kind that is held back, and the retries.

    A head that only its model's limits or its account's pause hold back would hold back its whole
    class, others of which may go. It is parked, later ones of its kind (its model and account)
    queue up behind it, and each first one comes back into the common queue, whose order is the
    policy's, when it fits. A head that waits for its next attempt is parked alone: nothing
    queues up behind it.
    """

    def __init__(self, common: OrderedQueue, make: Callable[[], OrderedQueue]) -> None:
        """Take over a class's queue; `make` gives those beside it."""
        self._common = common
        self._make = make
        self._by_kind: dict[str, OrderedQueue] = {}
        self._is_parked: set[int] = set()  # asked for members, never walked through
        self._retries: dict[int, Ticket] = {}

    def push(self, ticket: Ticket, *, now: float) -> None:
        """Take in a ticket, behind those of its kind that are parked."""
        queue = self._by_kind.get(kind_of(ticket))
        if queue is None:
            self._common.push(ticket, now=now)
        else:
            first = queue.head(now=now)
            if first is not None:
                ticket.hold(first.held_by, now)
            queue.push(ticket, now=now)
            self._is_parked.add(ticket.request.id)

    def head(self, *, now: float) -> Ticket | None:
        """Return the ticket that goes next, of those that are not parked."""
        return self._common.head(now=now)

    def take(self, ticket: Ticket, *, now: float) -> None:
        """Remove a ticket that is parked no more."""
        id_ = ticket.request.id
        if self._retries.pop(id_, None) is not None:
            return
        if id_ not in self._is_parked:
            self._common.take(ticket, now=now)
            return
        self._is_parked.remove(id_)
        kind = kind_of(ticket)
        queue = self._by_kind[kind]
        queue.take(ticket, now=now)
        if not len(queue):
            del self._by_kind[kind]

    def park(self, ticket: Ticket, *, alone: bool, now: float) -> None:
        """Park a ticket of the common queue: alone, or at the head of a queue for its kind."""
        self._common.take(ticket, now=now)
        if alone:
            self._retries[ticket.request.id] = ticket
            return
        kind = kind_of(ticket)
        queue = self._by_kind.get(kind)
        if queue is None:
            queue = self._by_kind[kind] = self._make()
        queue.push(ticket, now=now)
        self._is_parked.add(ticket.request.id)

    def unpark(self, ticket: Ticket, *, now: float) -> None:
        """Let a parked ticket take its place in the common queue."""
        self.take(ticket, now=now)
        self._common.push(ticket, now=now)

    def firsts(self, *, now: float) -> list[Ticket]:
        """Return the first parked ticket of each kind, and all that wait for their retry."""
        heads = (queue.head(now=now) for queue in self._by_kind.values())
        return [*(head for head in heads if head is not None), *self._retries.values()]

    def first(self, kind: str, *, now: float) -> Ticket | None:
        """Return the first parked ticket of one kind."""
        queue = self._by_kind.get(kind)
        return None if queue is None else queue.head(now=now)

    def __len__(self) -> int:
        """Return how many wait, the parked ones included."""
        return len(self._common) + len(self._is_parked) + len(self._retries)
