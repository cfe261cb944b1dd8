"""A class's queue in which tickets that others need not wait for are parked.

Parked retries are ordered by when time lets them go: who is not due is not looked at.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Protocol

from penstock.core.policy import OrderedQueue
from penstock.core.ticket import Ticket, kind_of
from penstock.core.upstream.ledger import Upstream


class GateAt(Protocol):
    """When circuit, pace and budget let a ticket go; never earlier for one that costs more."""

    def __call__(
        self, ticket: Ticket, /, upstream: Upstream, *, unproven: bool, now: float
    ) -> float:
        """Return the time, in driver seconds; -inf if nothing but itself holds it."""
        ...


_Entry = tuple[float, int, Ticket]


@dataclass(slots=True)
class _RetryGroup:
    """Retries at one upstream that only their own back-off and their cost tell apart.

    Attributes:
        later: whose own back-off goes on, by its end.
        ripe: the others, the cheapest first.
        refused: by when they were refused, where that matters: the unproven.
        cheapest: who costs least of all that have come, even if it has left.

    """

    cheapest: Ticket
    later: list[_Entry] = field(default_factory=list)
    ripe: list[_Entry] = field(default_factory=list)
    refused: list[_Entry] = field(default_factory=list)


class ParkedRetries:
    """Tickets that wait for their next attempt, each alone.

    Those of a kind that were sent as often wait for the same circuit, pace and budget: the
    first of such a group tells when all of it may go. So a look costs as much as there are groups
    and tickets that are due, however many wait. Who leaves stays in the heaps until it surfaces,
    or until those who have left are the majority.
    """

    def __init__(self, upstreams: Iterable[Upstream]) -> None:
        """Start with none; these upstreams may serve them."""
        self._upstreams = tuple(upstreams)
        self._groups: dict[str, dict[tuple[str, int, bool, bool], _RetryGroup]] = {
            each.name: {} for each in self._upstreams
        }
        self._parked: dict[int, int] = {}
        self._number = 0

    def add(self, ticket: Ticket) -> None:
        """Take in a ticket that is to be sent again."""
        self._number += 1
        self._parked[ticket.request.id] = self._number
        for upstream in self._upstreams:
            unproven = upstream.account(ticket.request.account).unproven(ticket, upstream.name)
            self._file(ticket, upstream.name, self._number, unproven=unproven)

    def discard(self, ticket: Ticket) -> bool:
        """Forget a ticket; say whether it was here."""
        return self._parked.pop(ticket.request.id, None) is not None

    def due(
        self, opened: Iterable[Upstream], gate_at: GateAt, *, now: float
    ) -> tuple[list[Ticket], float]:
        """Return who may be tried at one of these upstreams now, and when the next one may be.

        They are in the order in which they were parked, and stay here until they are discarded.
        """
        due: dict[int, Ticket] = {}
        next_at = math.inf
        for upstream in opened:
            groups = self._groups[upstream.name]
            for group in tuple(groups.values()):
                self._prove(group, upstream)
            for key, group in tuple(groups.items()):
                gate = partial(gate_at, upstream=upstream, unproven=key[-1], now=now)
                found, at = self._look(group, gate, now)
                next_at = min(next_at, at)
                due.update(found)
                if not group.later and not group.ripe:
                    del groups[key]
        return [due[number] for number in sorted(due)], next_at

    def __contains__(self, ticket: Ticket) -> bool:
        """Say whether a ticket waits here."""
        return ticket.request.id in self._parked

    def __len__(self) -> int:
        """Return how many wait here."""
        return len(self._parked)

    def _file(self, ticket: Ticket, upstream: str, number: int, *, unproven: bool) -> None:
        """Put a ticket into its group at an upstream."""
        key = kind_of(ticket), ticket.attempts, ticket.retry_paid, unproven
        groups = self._groups[upstream]
        group = groups.get(key)
        if group is None:
            group = groups[key] = _RetryGroup(ticket)
        elif _tokens(ticket) < _tokens(group.cheapest):
            group.cheapest = ticket
        heappush(group.later, (ticket.may_retry_at(upstream), number, ticket))
        if unproven:
            heappush(group.refused, (ticket.refused_at(upstream), number, ticket))
        if len(group.later) + len(group.ripe) > 2 * len(self._parked) + 64:
            for heap in (group.later, group.ripe, group.refused):
                heap[:] = filter(self._is_here, heap)
                heapify(heap)

    def _prove(self, group: _RetryGroup, upstream: Upstream) -> None:
        """File those anew whom others have passed since they were refused.

        What is left of them in this group changes nothing: they go no later by the other one.
        """
        refused = group.refused
        while refused:
            _, number, ticket = refused[0]
            account = upstream.account(ticket.request.account)
            here = self._is_here(refused[0])
            if here and account.unproven(ticket, upstream.name):
                return
            heappop(refused)
            if here:
                self._file(ticket, upstream.name, number, unproven=False)

    def _look(
        self, group: _RetryGroup, gate_at: Callable[[Ticket], float], now: float
    ) -> tuple[dict[int, Ticket], float]:
        """Return who is due of a group, by number, and when the next one may be."""
        later, ripe = group.later, group.ripe
        while later and (later[0][0] <= now or not self._is_here(later[0])):
            entry = heappop(later)
            if self._is_here(entry):
                heappush(ripe, (_tokens(entry[2]), *entry[1:]))
        next_at = math.inf
        due: list[_Entry] = []
        while ripe:
            if self._is_here(ripe[0]):
                at = gate_at(ripe[0][2])
                if at > now:
                    next_at = at
                    break
                due.append(ripe[0])
            heappop(ripe)
        for entry in due:
            heappush(ripe, entry)
        if later:
            next_at = min(next_at, max(later[0][0], gate_at(group.cheapest)))
        return {number: ticket for _, number, ticket in due}, next_at

    def _is_here(self, entry: _Entry) -> bool:
        return self._parked.get(entry[2].request.id) == entry[1]


def _tokens(ticket: Ticket) -> float:
    return ticket.request.prompt_tokens + ticket.cost_tokens


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
