"""Feasible-set ordering: first those that can still make it, most pressing first."""

from heapq import heapify, heappop, heappush
from typing import Annotated

from penstock.core.rule import Rule
from penstock.core.ticket import Ticket

_Entry = tuple[float, int, Ticket]
_Price = Annotated[float, Rule(low=0)]
_Patience = Annotated[
    int,
    Rule(low=2, whole=True, why="as it counts requests (1 would be first come, first served)"),
]


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

    def __init__(self, *, price: _Price = 1.0, patience: _Patience = 64) -> None:
        """Start empty."""
        self._price = price
        self._last_of_turn = patience - 1
        # Who waits is said by one dictionary for all three heaps: what is taken stays in them as
        # a tombstone until it surfaces, or until tombstones are the majority.
        self._waiting: dict[int, Ticket] = {}
        self._feasible: list[_Entry] = []
        self._hopeless: list[_Entry] = []
        self._by_age: list[int] = []
        self._taken = 0

    def push(self, ticket: Ticket, *, now: float) -> None:
        """Take in a ticket."""
        id_ = ticket.request.id
        self._waiting[id_] = ticket
        heappush(self._by_age, id_)
        if ticket.latest_start >= now:
            score = ticket.latest_start + self._price * ticket.service_p50_s
            heappush(self._feasible, (score, id_, ticket))
        else:
            heappush(self._hopeless, (ticket.service_p50_s, id_, ticket))

    def head(self, *, now: float) -> Ticket | None:
        """Return the oldest when its turn has come, else the best feasible, else the shortest."""
        waiting = self._waiting
        if not waiting:
            return None
        if self._taken >= self._last_of_turn:
            return waiting[self._oldest()]
        feasible = self._feasible
        while feasible:
            _, id_, ticket = feasible[0]
            waits = waiting.get(id_) is ticket
            if waits and ticket.latest_start >= now:
                return ticket
            heappop(feasible)
            if waits:
                heappush(self._hopeless, (ticket.service_p50_s, id_, ticket))
        hopeless = self._hopeless
        while waiting.get(hopeless[0][1]) is not hopeless[0][2]:
            heappop(hopeless)
        return hopeless[0][2]

    def take(self, ticket: Ticket, *, now: float) -> None:
        """Remove a ticket; taking the oldest starts the count anew."""
        id_, waiting, feasible = ticket.request.id, self._waiting, self._feasible
        self._taken = 0 if id_ == self._oldest() else self._taken + 1
        del waiting[id_]
        if feasible and feasible[0][2] is ticket:
            heappop(feasible)
        held = len(feasible) + len(self._hopeless) + len(self._by_age)
        if held > 4 * len(waiting) + 64:
            self._sweep()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def _oldest(self) -> int:
        waiting, by_age = self._waiting, self._by_age
        while by_age[0] not in waiting:
            heappop(by_age)
        return by_age[0]

    def _sweep(self) -> None:
        """Drop the entries of tickets that were taken."""
        waiting = self._waiting
        self._feasible = [entry for entry in self._feasible if waiting.get(entry[1]) is entry[2]]
        self._hopeless = [entry for entry in self._hopeless if waiting.get(entry[1]) is entry[2]]
        self._by_age = sorted(waiting)
        heapify(self._feasible)
        heapify(self._hopeless)
