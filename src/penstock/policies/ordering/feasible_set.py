"""Feasible-set ordering: first those that can still make it, most pressing first."""

from penstock.core.heap_queue import HeapQueue
from penstock.core.ticket import Ticket


class FeasibleSet:
    """Serves the feasible by latest start plus a price on length; the hopeless go last.

    A request is feasible while its p90 service time still fits before its deadline. Its score

        latest start + `price` x predicted median service time

    does not change while it waits, so a heap holds it; feasibility is looked at when it comes to
    the top, and one that has become hopeless moves to a second heap, shortest first, which is
    served when no feasible one waits. So nothing wedges.

    Nothing starves: of every `patience` requests taken from the queue, one is the oldest. A
    request with k older ones before it is taken at the latest as number patience x (k + 1).

    Source:
        The paper's feasible-set scoring; its formula is not public, this one is ours. Least
        laxity: Dertouzos & Mok, IEEE TSE 15(12), 1989. Putting the long ones last when not all
        can be on time: Moore, Management Science 15(1), 1968.

    """

    def __init__(self, *, price: float = 1.0, patience: int = 64) -> None:
        """Start empty.

        Raises:
            ValueError: `price` is negative or `patience` below 2.

        """
        if not price >= 0 or patience < 2:
            raise ValueError(
                f"price={price!r}, patience={patience!r}: price must be 0 or more, patience at "
                "least 2 (1 would be plain first come, first served)"
            )
        self._price = price
        self._patience = patience
        self._feasible = HeapQueue()
        self._hopeless = HeapQueue()
        self._by_age = HeapQueue()
        self._taken = 0

    def push(self, ticket: Ticket, *, now: float) -> None:
        """Take in a ticket."""
        if ticket.latest_start >= now:
            score = ticket.latest_start + self._price * ticket.service_p50_s
            self._feasible.push(score, ticket)
        else:
            self._hopeless.push(ticket.service_p50_s, ticket)
        self._by_age.push(ticket.request.id, ticket)

    def head(self, *, now: float) -> Ticket | None:
        """Return the oldest when its turn has come, else the best feasible, else the shortest."""
        if self._taken >= self._patience - 1:
            return self._by_age.head()
        feasible = self._feasible
        while (ticket := feasible.head()) is not None:
            if ticket.latest_start >= now:
                return ticket
            feasible.discard(ticket)
            self._hopeless.push(ticket.service_p50_s, ticket)
        return self._hopeless.head()

    def take(self, ticket: Ticket, *, now: float) -> None:
        """Remove a ticket; taking the oldest starts the count anew."""
        oldest = self._by_age.head()
        self._by_age.discard(ticket)
        if not self._feasible.discard(ticket):
            self._hopeless.discard(ticket)
        self._taken = 0 if ticket is oldest else self._taken + 1

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._by_age)
