"""A class's waiting requests, where tenants take turns by the tokens that each has been served."""

import math
from collections.abc import Callable
from heapq import heappop, heappush

from penstock.core.policy import OrderedQueue
from penstock.core.signals import ClassDemand
from penstock.core.ticket import Ticket

DEBTORS_LIMIT = 10_000
"""Idle tenants whose service is remembered; names are the callers', so memory is bounded."""


class TenantTurns:
    """What the tenants of one class have been served, in whichever of its queues they wait.

    The one that was served least goes next. Served tokens are charged at dispatch with the estimate
    and settled with the real count. A tenant that begins to wait starts where the tenant that was
    served last stood at its dispatch, less what its own part of the places in flight would have
    taken: those places are held by others and cannot be taken back, so it gets as many of the next
    ones. What it is then ahead is remembered, as is what it owes: idleness earns nothing. Between
    two tenants that both wait throughout, the settled tokens differ by at most that lead and the
    dearest request of each. One tenant alone is served in the order of the class's ordering policy.

    Source:
        Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024 (virtual token
        counter), on Goyal et al., "Start-time Fair Queueing", IEEE/ACM ToN 5(5), 1997: deficit
        round robin's fairness in O(log tenants) a decision. Where a new flow starts when many
        requests are in service: Jin, Chase & Kaur, "Interposed Proportional Sharing for a Storage
        Service Utility", SIGMETRICS 2004; the part in place of all of them is ours.

    """

    def __init__(self, demand: ClassDemand) -> None:
        """Start with nobody; `demand` knows what flies."""
        self._demand = demand
        self._waits_in: dict[str, list[TenantQueue]] = {}
        self._served_tokens: dict[str, float] = {}
        self._floor_tokens = 0.0

    def begin(self, tenant: str, queue: "TenantQueue") -> None:
        """Note that a tenant waits in a queue from now on."""
        queues = self._waits_in.get(tenant)
        if queues is not None:
            queues.append(queue)
            return
        self._waits_in[tenant] = [queue]
        start = self._floor_tokens - self._part_tokens(len(self._waits_in))
        self._served_tokens[tenant] = max(start, self._served_tokens.get(tenant, -math.inf))

    def end(self, tenant: str, queue: "TenantQueue") -> None:
        """Note that it waits there no more; waiting nowhere, it is forgotten unless it owes."""
        queues = self._waits_in[tenant]
        queues.remove(queue)
        if queues:
            return
        del self._waits_in[tenant]
        if self._served_tokens[tenant] <= self._forgettable_tokens:
            del self._served_tokens[tenant]
        elif len(self._served_tokens) > DEBTORS_LIMIT + len(self._waits_in):
            self._forget()

    def served_tokens(self, tenant: str) -> float:
        """Return what a tenant that waits has been served, as compared with the others."""
        return self._served_tokens[tenant]

    def charge(self, tenant: str, cost_tokens: float) -> None:
        """Note that a tenant's request goes, at its predicted cost."""
        served = self._served_tokens.get(tenant, self._floor_tokens)
        self._floor_tokens = max(self._floor_tokens, served)
        self._set_served(tenant, served + cost_tokens)

    def settle(self, tenant: str, excess_tokens: float) -> None:
        """Correct the charge once the real usage is known (real minus predicted)."""
        self._set_served(
            tenant, self._served_tokens.get(tenant, self._floor_tokens) + excess_tokens
        )

    def forget_debts(self) -> None:
        """Nothing waits or flies any more: nobody owes."""
        self._served_tokens.clear()
        self._floor_tokens = 0.0

    @property
    def _forgettable_tokens(self) -> float:
        """Served tokens up to which a tenant stands no worse if nothing is known of it."""
        return self._floor_tokens - self._demand.in_flight_tokens

    def _part_tokens(self, tenants: int) -> float:
        """Return what whole places of one of so many tenants take of the tokens in flight."""
        flying = self._demand.in_flight
        places = flying // max(2, tenants)
        return self._demand.in_flight_tokens * places / flying if places else 0.0

    def _set_served(self, tenant: str, served_tokens: float) -> None:
        """Note what a tenant was served; where it waits it takes the turn that this gives it."""
        self._served_tokens[tenant] = served_tokens
        queues = self._waits_in.get(tenant)
        if queues is not None:
            for queue in queues:
                queue.moved(tenant)
        elif served_tokens <= self._forgettable_tokens:
            del self._served_tokens[tenant]

    def _forget(self) -> None:
        """Drop the idle whose debts the others have caught up with, or else the oldest of all."""
        floor, waiting = self._forgettable_tokens, self._waits_in
        idle = [tenant for tenant in self._served_tokens if tenant not in waiting]
        paid = [tenant for tenant in idle if self._served_tokens[tenant] <= floor]
        for tenant in paid or idle[: DEBTORS_LIMIT // 2]:
            del self._served_tokens[tenant]


class TenantQueue:
    """One queue for each tenant that waits; who was served least of those here goes next."""

    def __init__(self, make: Callable[[], OrderedQueue], turns: TenantTurns) -> None:
        """Start empty; `make` gives the queue of one tenant."""
        self._make = make
        self._tenants = turns
        self._spare: OrderedQueue | None = None
        self._queues: dict[str, OrderedQueue] = {}
        self._turns: list[tuple[float, int, str]] = []
        self._number = 0
        self._waiting = 0

    def push(self, ticket: Ticket, *, now: float) -> None:
        """Take in a ticket behind its tenant's others, as the ordering policy says."""
        tenant = ticket.request.tenant
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._make() if self._spare is None else self._spare
            self._queues[tenant], self._spare = queue, None
            self._tenants.begin(tenant, self)
            if len(self._queues) == 2:  # one tenant alone needs no turns
                for each in self._queues:
                    self._line_up(each)
            elif len(self._queues) > 2:
                self._line_up(tenant)
        queue.push(ticket, now=now)
        self._waiting += 1

    def head(self, *, now: float) -> Ticket | None:
        """Return the head of the tenant that was served least."""
        if len(self._queues) == 1:
            (queue,) = self._queues.values()
            return queue.head(now=now)
        turns, queues = self._turns, self._queues
        while turns:
            tokens, _, tenant = turns[0]
            if tenant in queues and self._tenants.served_tokens(tenant) == tokens:
                return queues[tenant].head(now=now)
            heappop(turns)
        return None

    def take(self, ticket: Ticket, *, now: float) -> None:
        """Remove a ticket."""
        tenant = ticket.request.tenant
        queue = self._queues[tenant]
        queue.take(ticket, now=now)
        self._waiting -= 1
        if not len(queue):
            self._spare = self._queues.pop(tenant)
            if not self._queues:
                self._turns.clear()
            self._tenants.end(tenant, self)

    def moved(self, tenant: str) -> None:
        """Note that a tenant that waits here was served more than it was, or less."""
        if len(self._queues) > 1:
            self._line_up(tenant)

    def __len__(self) -> int:
        """Return how many wait."""
        return self._waiting

    def _line_up(self, tenant: str) -> None:
        """Put a tenant where its service says; its older entries no longer match and fall out."""
        served_tokens = self._tenants.served_tokens
        self._number += 1
        heappush(self._turns, (served_tokens(tenant), self._number, tenant))
        if len(self._turns) > 4 * len(self._queues) + 64:
            self._turns = sorted(
                entry
                for entry in self._turns
                if entry[2] in self._queues and served_tokens(entry[2]) == entry[0]
            )
