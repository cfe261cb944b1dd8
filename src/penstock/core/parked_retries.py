"""Parked retries by when time lets them go: who is not due is not looked at."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Protocol

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
