"""A class's queue in which tickets that others need not wait for are parked."""

from collections.abc import Callable

from penstock.core.policy import OrderedQueue
from penstock.core.ticket import Ticket


class ParkingQueue:
    """One queue for all, one beside it for each model at its own limits, and the retries.

    A head that only its model's limits hold back would hold back its whole class, other models
    of which have room. It is parked, later ones of its model queue up behind it, and each
    first one comes back into the common queue, whose order is the policy's, when it fits.
    A head that waits for its next attempt is parked alone: nothing queues up behind it.
    """

    def __init__(self, common: OrderedQueue, make: Callable[[], OrderedQueue]) -> None:
        """Take over a class's queue; `make` gives those beside it."""
        self._common = common
        self._make = make
        self._by_model: dict[str, OrderedQueue] = {}
        self._is_parked: set[int] = set()  # asked for members, never walked through
        self._retries: dict[int, Ticket] = {}

    def push(self, ticket: Ticket, *, now: float) -> None:
        """Take in a ticket, behind those of its model that are parked."""
        queue = self._by_model.get(ticket.request.model)
        if queue is None:
            self._common.push(ticket, now=now)
        else:
            queue.push(ticket, now=now)
            self._is_parked.add(ticket.request.id)

    def head(self, *, now: float) -> Ticket | None:
        """Return the ticket that goes next, of those that are not parked."""
        return self._common.head(now=now)

    def take(self, ticket: Ticket, *, now: float) -> None:
        """Remove a ticket."""
        id_, model = ticket.request.id, ticket.request.model
        if self._retries.pop(id_, None) is not None:
            return
        if id_ not in self._is_parked:
            self._common.take(ticket, now=now)
            return
        self._is_parked.remove(id_)
        queue = self._by_model[model]
        queue.take(ticket, now=now)
        if not len(queue):
            del self._by_model[model]

    def park(self, ticket: Ticket, *, alone: bool, now: float) -> None:
        """Park a ticket of the common queue: alone, or at the head of a queue for its model."""
        self._common.take(ticket, now=now)
        if alone:
            self._retries[ticket.request.id] = ticket
            return
        model = ticket.request.model
        queue = self._by_model.get(model)
        if queue is None:
            queue = self._by_model[model] = self._make()
        queue.push(ticket, now=now)
        self._is_parked.add(ticket.request.id)

    def unpark(self, ticket: Ticket, *, now: float) -> None:
        """Let a parked ticket take its place in the common queue."""
        self.take(ticket, now=now)
        self._common.push(ticket, now=now)

    def firsts(self, *, now: float) -> list[Ticket]:
        """Return the first parked ticket of each model, and all that wait for their retry."""
        heads = (queue.head(now=now) for queue in self._by_model.values())
        return [*(head for head in heads if head is not None), *self._retries.values()]

    def first(self, model: str, *, now: float) -> Ticket | None:
        """Return the first parked ticket of one model."""
        queue = self._by_model.get(model)
        return None if queue is None else queue.head(now=now)

    def __len__(self) -> int:
        """Return how many wait, the parked ones included."""
        return len(self._common) + len(self._is_parked) + len(self._retries)
