"""What waits or is deferred, by class: the ledger that queue limits look at.

Retries have a ledger too: so many attempts beyond the first, per lane.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace

from penstock.core.model import TrafficClass
from penstock.core.ticket import Ticket

WINDOW_S = 60.0
ALWAYS = 3
ELSEWHERE_SHARE = 0.5


class RetryBudget:
    """Repeated attempts in the last minute, as a share of the requests that arrived in it.

    Retries that nobody limits turn a moment of overload into a lasting one. At least `ALWAYS`
    are allowed in a minute for each upstream, or a lone request could never be tried again.

    A broken attempt that goes to another upstream, one that is sound as far as we know, adds
    nothing to the sick one's trouble, and its own purse is wider: `ELSEWHERE_SHARE` of the
    requests. Where everything breaks no upstream is sound, and nobody goes anywhere.

    Source:
        Retry budgets: Beyer et al., "Site Reliability Engineering", 2016, chapter 21.

    """

    def __init__(self, share: float, upstreams: int = 1) -> None:
        """Start with nothing seen; `share` is retries per request."""
        self.share = share
        self._always = ALWAYS * upstreams
        self._arrivals: deque[float] = deque()
        self._retries: deque[float] = deque()
        self._elsewhere: deque[float] = deque()

    def arrived(self, now: float) -> None:
        """Count a client's request."""
        arrivals = self._arrivals
        arrivals.append(now)
        while arrivals[0] <= now - WINDOW_S:
            arrivals.popleft()

    def next_at(self, *, now: float) -> float:
        """Return when a retry may be made: `now`, or when an earlier one leaves the window."""
        self._forget(now)
        allowed = max(self._always, int(self.share * len(self._arrivals)))
        spent = len(self._retries)
        return now if spent < allowed else self._retries[spent - allowed] + WINDOW_S

    def spend(self, *, now: float) -> None:
        """Count a retry that is made now."""
        self._retries.append(now)

    def may_go_elsewhere(self, *, now: float) -> bool:
        """Return whether a broken attempt may be made again at another upstream."""
        self._forget(now)
        allowed = max(self._always, int(ELSEWHERE_SHARE * len(self._arrivals)))
        return len(self._elsewhere) < allowed

    def go_elsewhere(self, *, now: float) -> None:
        """Count an attempt that is made again at another upstream."""
        self._elsewhere.append(now)

    def _forget(self, now: float) -> None:
        for times in (self._arrivals, self._retries, self._elsewhere):
            while times and times[0] <= now - WINDOW_S:
                times.popleft()


class _Shares:
    """How much each tenant has waiting, and who has the most; a change costs O(log tenants)."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._has: dict[str, float] = {}
        # A heap; of each tenant one entry counts, which is never below what it has. Others are
        # left from before, and may be as large.
        self._order: list[tuple[float, int, str]] = []
        self._entries: dict[str, tuple[float, int, str]] = {}
        self._number = 0

    def of(self, tenant: str) -> float:
        """Return how much a tenant has."""
        return self._has.get(tenant, 0.0)

    def add(self, tenant: str, by: float) -> None:
        """Let a tenant have so much more; less than half a token is a rounding error."""
        amount = self._has.get(tenant, 0.0) + by
        if amount < 0.5:
            self._has.pop(tenant, None)
            self._entries.pop(tenant, None)
            return
        self._has[tenant] = amount
        entry = self._entries.get(tenant)
        if entry is None or amount > -entry[0]:
            heappush(self._order, self._entry(tenant, amount))
            if len(self._order) > 4 * len(self._has) + 64:
                self._order = sorted(self._entries.values())

    def _entry(self, tenant: str, amount: float) -> tuple[float, int, str]:
        """Return a tenant's entry from now on."""
        self._number += 1
        entry = self._entries[tenant] = (-amount, self._number, tenant)
        return entry

    def above(self, amount: float) -> str | None:
        """Return who has the most, if that is more than this."""
        order, has = self._order, self._has
        while order:
            most, _, tenant = order[0]
            if self._entries.get(tenant) is not order[0]:
                heappop(order)
            elif has[tenant] < -most:
                heapreplace(order, self._entry(tenant, has[tenant]))
            else:
                return tenant if -most > amount else None
        return None


@dataclass(slots=True)
class _ClassBacklog:
    """What is held back of one class; of each tenant in the order in which it arrived."""

    limit: int
    limit_tokens: float
    count: int = 0
    tokens: float = 0.0
    shares: _Shares = field(default_factory=_Shares)
    token_shares: _Shares = field(default_factory=_Shares)
    tickets: dict[str, OrderedDict[int, Ticket]] = field(default_factory=dict)

    def making_room(self, ticket: Ticket) -> tuple[Ticket, ...]:
        """Return whose leaving makes room for the tokens of this ticket; none if that is unfair."""
        shares = self.token_shares
        most = shares.of(ticket.request.tenant) + ticket.cost_tokens
        excess = self.tokens + ticket.cost_tokens - self.limit_tokens
        taken: dict[str, float] = {}
        newest: dict[str, Iterator[Ticket]] = {}
        leaving: list[Ticket] = []
        while excess > 0.0 and (tenant := shares.above(most)) is not None:
            if tenant not in newest:
                newest[tenant] = reversed(self.tickets[tenant].values())
            each = next(newest[tenant])
            if each.cost_tokens > self.limit_tokens:
                break  # it entered an empty queue, or it never would
            leaving.append(each)
            excess -= each.cost_tokens
            taken[tenant] = taken.get(tenant, 0.0) + each.cost_tokens
            shares.add(tenant, -each.cost_tokens)
        for tenant, tokens in taken.items():
            shares.add(tenant, tokens)
        return () if excess > 0.0 else tuple(leaving)


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

    def surplus(self, ticket: Ticket, *, turns: bool) -> tuple[Ticket, ...]:
        """Return which tickets are too much if this one comes: itself, or others of other tenants.

        A request above the whole token limit may enter while its class holds nothing, or it
        could never be served. Where tenants take turns and the queue is full, the newest of the
        tenant with the most is too much, unless this one's would then have as many: the most
        requests, or in a queue that is full by tokens the most tokens.
        """
        tenant = ticket.request.tenant
        held = self._held[ticket.request.traffic_class]
        if held.count > 0 and held.tokens + ticket.cost_tokens > held.limit_tokens:
            return (turns and held.making_room(ticket)) or (ticket,)
        if held.count >= held.limit:
            largest = held.shares.above(held.shares.of(tenant) + 1)
        elif self._count >= self._limit:
            largest = self._shares.above(self._shares.of(tenant) + 1)
        else:
            return ()
        if largest is None or not turns:
            return (ticket,)
        if held.count < held.limit:
            held = max(self._held.values(), key=lambda h: len(h.tickets.get(largest, ())))
        return (next(reversed(held.tickets[largest].values())),)

    def enter(self, ticket: Ticket) -> None:
        """Count a ticket that is held back from now on."""
        request = ticket.request
        held = self._change(ticket, 1)
        tickets = held.tickets.get(request.tenant)
        if tickets is None:
            tickets = held.tickets[request.tenant] = OrderedDict()
        tickets[request.id] = ticket
        if ticket.attempts:  # it was here before the others, and a provider has worked on it
            tickets.move_to_end(request.id, last=False)

    def leave(self, ticket: Ticket) -> None:
        """Count out a ticket that goes upstream or ends."""
        request = ticket.request
        tickets = self._change(ticket, -1).tickets
        del tickets[request.tenant][request.id]
        if not tickets[request.tenant]:
            del tickets[request.tenant]

    def _change(self, ticket: Ticket, by: int) -> _ClassBacklog:
        """Count a ticket in (1) or out (-1)."""
        tenant, held = ticket.request.tenant, self._held[ticket.request.traffic_class]
        self._count += by
        self._shares.add(tenant, by)
        held.count += by
        # Where nothing is left, rounding errors end.
        held.tokens = held.tokens + by * ticket.cost_tokens if held.count else 0.0
        held.shares.add(tenant, by)
        held.token_shares.add(tenant, by * ticket.cost_tokens)
        return held

    def clear(self) -> None:
        """Forget who is held back, to count them anew."""
        self._count = 0
        self._shares = _Shares()
        for held in self._held.values():
            held.count, held.tokens = 0, 0.0
            held.shares, held.token_shares = _Shares(), _Shares()
            held.tickets.clear()
