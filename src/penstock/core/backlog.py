"""What waits or is deferred, by class: the ledger that queue limits look at."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.core.model import TrafficClass
from penstock.core.ticket import Ticket


class _Shares:
    """How many each tenant has waiting, and who has the most; a change costs O(1)."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._counts: dict[str, int] = {}
        # Ordered: the first of a dict is found in O(1) only while nothing before it was removed.
        self._by_count: dict[int, OrderedDict[str, None]] = {}
        self._most = 0

    def change(self, tenant: str, by: int) -> None:
        """Count one more (1) or one fewer (-1) of a tenant."""
        old = self._counts.get(tenant, 0)
        new = old + by
        if old:
            group = self._by_count[old]
            del group[tenant]
            if not group:
                del self._by_count[old]
        if new:
            self._counts[tenant] = new
            self._by_count.setdefault(new, OrderedDict())[tenant] = None
        else:
            del self._counts[tenant]
        if new > self._most or self._most not in self._by_count:
            self._most = new

    def above(self, tenant: str) -> str | None:
        """Return who has the most, if that is still more after one more of this tenant."""
        if self._counts.get(tenant, 0) + 1 >= self._most:
            return None
        return next(iter(self._by_count[self._most]))


@dataclass(slots=True)
class _ClassBacklog:
    """What is held back of one class; of each tenant in the order in which it arrived."""

    limit: int
    limit_tokens: float
    count: int = 0
    tokens: float = 0.0
    shares: _Shares = field(default_factory=_Shares)
    tickets: dict[str, OrderedDict[int, Ticket]] = field(default_factory=dict)


class Backlog:
    """Counts and predicted tokens of everything that is held back, in all lanes."""

    def __init__(self, classes: Mapping[str, TrafficClass], limit: int) -> None:
        """Start empty; `limit` is for all classes together."""
        self._limit = limit
        self._count = 0
        self._shares = _Shares()
        self._held = {
            name: _ClassBacklog(each.queue_limit, each.queue_limit_tokens)
            for name, each in classes.items()
        }

    def reconfigure(self, classes: Mapping[str, TrafficClass], limit: int) -> None:
        """Take other limits; what is held back stays, above them too."""
        self._limit = limit
        for name, each in classes.items():
            held = self._held.setdefault(
                name, _ClassBacklog(each.queue_limit, each.queue_limit_tokens)
            )
            held.limit, held.limit_tokens = each.queue_limit, each.queue_limit_tokens

    def surplus(self, ticket: Ticket, *, turns: bool) -> Ticket | None:
        """Return which ticket is too much if this one comes: None, itself, or another tenant's.

        A request above the whole token limit may enter while its class holds nothing, or it
        could never be served. Where tenants take turns and the queue is full by count, the newest
        of the tenant with the most is too much, unless this one's would then have as many.
        """
        request = ticket.request
        held = self._held[request.traffic_class]
        if held.count > 0 and held.tokens + ticket.cost_tokens > held.limit_tokens:
            return ticket
        if held.count >= held.limit:
            largest = held.shares.above(request.tenant) if turns else None
        elif self._count >= self._limit:
            largest = self._shares.above(request.tenant) if turns else None
            if largest is not None:
                held = max(self._held.values(), key=lambda h: len(h.tickets.get(largest, ())))
        else:
            return None
        return ticket if largest is None else next(reversed(held.tickets[largest].values()))

    def enter(self, ticket: Ticket) -> None:
        """Count a ticket that is held back from now on."""
        request = ticket.request
        tenant = request.tenant
        held = self._held[request.traffic_class]
        self._count += 1
        held.count += 1
        held.tokens += ticket.cost_tokens
        self._shares.change(tenant, 1)
        held.shares.change(tenant, 1)
        tickets = held.tickets.get(tenant)
        if tickets is None:
            tickets = held.tickets[tenant] = OrderedDict()
        tickets[request.id] = ticket
        if ticket.attempts:  # it was here before the others, and a provider has worked on it
            tickets.move_to_end(request.id, last=False)

    def clear(self) -> None:
        """Forget who is held back, to count them anew."""
        self._count = 0
        self._shares = _Shares()
        for held in self._held.values():
            held.count, held.tokens = 0, 0.0
            held.shares = _Shares()
            held.tickets.clear()

    def leave(self, ticket: Ticket) -> None:
        """Count out a ticket that goes upstream or ends."""
        request = ticket.request
        tenant = request.tenant
        held = self._held[request.traffic_class]
        self._count -= 1
        held.count -= 1
        # Where nothing is left, rounding errors end.
        held.tokens = held.tokens - ticket.cost_tokens if held.count else 0.0
        self._shares.change(tenant, -1)
        held.shares.change(tenant, -1)
        del held.tickets[tenant][request.id]
        if not held.tickets[tenant]:
            del held.tickets[tenant]
