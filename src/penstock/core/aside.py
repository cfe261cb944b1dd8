"""A class's queue in which requests of a model at its limit stand aside, so that others go."""

from collections.abc import Callable

from penstock.core.policy import OrderedQueue
from penstock.core.ticket import Ticket


class AsideQueue:
    """One queue for all, and one beside it for each model that has reached its own limits.

    A head that only its model's limits hold back would hold back its whole class, other models
    of which have room. It is set aside, later ones of its model queue up behind it, and each
    first one comes back into the common queue, whose order is the policy's, when it fits.
    """

    def __init__(self, common: OrderedQueue, make: Callable[[], OrderedQueue]) -> None:
        """Take over a class's queue; `make` gives those beside it."""
        self._common = common
        self._make = make
        self._aside: dict[str, OrderedQueue] = {}
        self._stands_aside: set[int] = set()  # asked for members, never walked through

    def push(self, ticket: Ticket, *, now: float) -> None:
        """Take in a ticket, behind those of its model that stand aside."""
        queue = self._aside.get(ticket.request.model)
        if queue is None:
            self._common.push(ticket, now=now)
        else:
            queue.push(ticket, now=now)
            self._stands_aside.add(ticket.request.id)

    def head(self, *, now: float) -> Ticket | None:
        """Return the ticket that goes next, of those that do not stand aside."""
        return self._common.head(now=now)

    def take(self, ticket: Ticket, *, now: float) -> None:
        """Remove a ticket."""
        id_, model = ticket.request.id, ticket.request.model
        if id_ not in self._stands_aside:
            self._common.take(ticket, now=now)
            return
        self._stands_aside.remove(id_)
        queue = self._aside[model]
        queue.take(ticket, now=now)
        if not len(queue):
            del self._aside[model]

    def set_aside(self, ticket: Ticket, *, now: float) -> None:
        """Let a ticket of the common queue stand aside."""
        self._common.take(ticket, now=now)
        model = ticket.request.model
        queue = self._aside.get(model)
        if queue is None:
            queue = self._aside[model] = self._make()
        queue.push(ticket, now=now)
        self._stands_aside.add(ticket.request.id)

    def come_back(self, ticket: Ticket, *, now: float) -> None:
        """Let a ticket that stands aside take its place in the common queue."""
        self.take(ticket, now=now)
        self._common.push(ticket, now=now)

    def firsts(self, *, now: float) -> list[Ticket]:
        """Return the first of each model that stands aside."""
        heads = (queue.head(now=now) for queue in self._aside.values())
        return [head for head in heads if head is not None]

    def first(self, model: str, *, now: float) -> Ticket | None:
        """Return the first of one model that stands aside."""
        queue = self._aside.get(model)
        return None if queue is None else queue.head(now=now)

    def __len__(self) -> int:
        """Return how many wait, those aside included."""
        return len(self._common) + len(self._stands_aside)
