"""A class's queue in which tickets that others need not wait for are parked."""

from collections.abc import Callable, Iterable

from penstock.core.parked_retries import GateAt, ParkedRetries
from penstock.core.policy import OrderedQueue
from penstock.core.ticket import Ticket, kind_of
from penstock.core.upstream.ledger import Upstream


class ParkingQueue:
    """One queue for all, one beside it for each kind that is held back, and the retries.

    A head that only its model's limits or its account's pause hold back would hold back its whole
    class, others of which may go. It is parked, later ones of its kind (its model and account)
    queue up behind it, and each first one comes back into the common queue, whose order is the
    policy's, when it fits. A head that waits for its next attempt is parked alone: nothing
    queues up behind it.
    """

    def __init__(
        self,
        common: OrderedQueue,
        make: Callable[[], OrderedQueue],
        upstreams: Iterable[Upstream],
    ) -> None:
        """Take over a class's queue, served by these upstreams; `make` gives those beside it."""
        self._common = common
        self._make = make
        self._by_kind: dict[str, OrderedQueue] = {}
        self._is_parked: set[int] = set()  # asked for members, never walked through
        self._retries = ParkedRetries(upstreams)

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
        if self._retries.discard(ticket):
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
        """Park a ticket: alone, or in a queue for its kind."""
        if alone:
            self.take(ticket, now=now)
            self._retries.add(ticket)
            return
        kind = kind_of(ticket)
        queue = self._by_kind.get(kind)
        if queue is None:
            queue = self._by_kind[kind] = self._make()
        queue.push(ticket, now=now)  # before it leaves where it was: its tenant waits throughout
        self.take(ticket, now=now)
        self._is_parked.add(ticket.request.id)

    def unpark(self, ticket: Ticket, *, now: float) -> None:
        """Let a parked ticket take its place in the common queue."""
        self._common.push(ticket, now=now)
        self.take(ticket, now=now)

    def keep(self, ticket: Ticket, *, alone: bool, now: float) -> None:
        """Leave a parked ticket parked; a retry that its kind's limits hold joins its kind."""
        if not alone and ticket in self._retries:
            self.park(ticket, alone=False, now=now)

    def due(
        self, opened: Iterable[Upstream], gate_at: GateAt, *, now: float
    ) -> tuple[list[Ticket], float]:
        """Return the first parked ticket of each kind and the retries that may be tried now.

        The time is when the next retry may be.
        """
        heads = (queue.head(now=now) for queue in self._by_kind.values())
        retries, next_at = self._retries.due(opened, gate_at, now=now)
        return [*(head for head in heads if head is not None), *retries], next_at

    def first(self, kind: str, *, now: float) -> Ticket | None:
        """Return the first parked ticket of one kind."""
        queue = self._by_kind.get(kind)
        return None if queue is None else queue.head(now=now)

    def __len__(self) -> int:
        """Return how many wait, the parked ones included."""
        return len(self._common) + len(self._is_parked) + len(self._retries)
