"""One lane: the queues that contend for the same upstreams.

Requests whose models are served by different upstreams never wait for each other, so one
upstream's trouble does not block another's queue.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from penstock.core.backlog import RetryBudget
from penstock.core.model import Latest, Request
from penstock.core.outage import Outage
from penstock.core.parked import ParkingQueue
from penstock.core.policy import Allocator, OrderedQueue
from penstock.core.signals import Signals
from penstock.core.tenants import TenantQueue, TenantTurns
from penstock.core.ticket import ClassHold, Stage, Ticket, kind_of
from penstock.core.upstream.breaker import BreakerState
from penstock.core.upstream.ledger import NO_OBSTACLE, Upstream

_QUEUED = Stage.QUEUED
BARRED = ("class", math.inf)
OWED = ("limits", math.inf)
PACE_ALONE, PACE_OF_OTHERS = 0.5, 0.7
LONGEST_RETRY_S = 60.0
PASSES_LIMIT = 16
"""After so many requests have gone by, a request that does not fit holds the lane until it does."""


@dataclass(slots=True)
class Lane:
    """Queues by class, the allocator between them and the upstreams that they share."""

    upstreams: tuple[Upstream, ...]
    allocator: Allocator
    make_queue: Callable[[], OrderedQueue]
    retries: RetryBudget
    signals: Signals = field(default_factory=Signals)
    queues: dict[str, OrderedQueue] = field(default_factory=dict)
    homes: Latest[str] | None = None
    """Where conversations were served last: their prompt caches are warm there. None: no matter."""
    tenants: dict[str, TenantTurns] | None = field(default_factory=dict)
    """The turns of tenants inside each class; None where tenants take none."""
    wake_at: float = math.inf
    closed: bool = False
    """No upstream has room, and only an event there can make some: arrivals need not look."""
    barred: tuple[str, ...] = ()
    """Classes whose heads the allocator holds back: one more of them changes nothing."""
    holds: dict[str, ClassHold] = field(default_factory=dict)
    """What keeps each class's head, and so its queue."""
    outage: Outage = field(init=False)
    """Whether its upstreams are closed to all, and what waiting for them is worth."""
    _cause: str = ""
    _only: Upstream | None = None
    _reserving: bool = False
    _parking: list[ParkingQueue] = field(default_factory=list)

    def __post_init__(self) -> None:
        """See whether there is anything to choose from."""
        self.outage = Outage(self.upstreams)
        if len(self.upstreams) == 1:
            self._only = self.upstreams[0]
        self.note_reserving()

    def note_reserving(self) -> None:
        """Note whether a limit of any upstream charges reservations: some may then never fit."""
        every = (limits for each in self.upstreams for limits in each.settings.every_limits)
        self._reserving = any(limits.charged == "reservation" for limits in every)

    def service_s(self, model: str, p50_tokens: float, p90_tokens: float) -> tuple[float, float]:
        """Return predicted service times (p50, p90) where the median is served fastest."""
        if self._only is not None:
            fit = self._only.service(model)
            return fit.predict_s(p50_tokens), fit.predict_s(p90_tokens)
        best = (math.inf, math.inf)
        for upstream in self.upstreams:
            fit = upstream.service(model)
            times = fit.predict_s(p50_tokens), fit.predict_s(p90_tokens)
            if times < best:
                best = times
        return best

    def push(self, ticket: Ticket, now: float) -> None:
        """Let a ticket wait for its turn."""
        name = ticket.request.traffic_class
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = self._new_queue(name)
        ticket.stage = _QUEUED
        self._follow(ticket, now)
        queue.push(ticket, now=now)
        self.signals.queued(ticket)

    def _follow(self, ticket: Ticket, now: float) -> None:
        """Let a ticket wait for whatever keeps its class's head."""
        name = ticket.request.traffic_class
        hold = self.holds.get(name)
        if hold is None:
            hold = self.holds[name] = ClassHold(self._cause, now)
        ticket.follow(hold, now)

    def make_place(self, name: str) -> None:
        """Know a class of which a ticket comes from elsewhere."""
        self.signals.demand(name)
        if name not in self.queues:
            self.queues[name] = self._new_queue(name)

    def requeue(
        self,
        make_queue: Callable[[], OrderedQueue],
        waiting: Iterable[Ticket],
        *,
        tenant_turns: bool,
        now: float,
    ) -> None:
        """Let the same tickets wait in another order."""
        self.make_queue = make_queue
        self.tenants = {} if tenant_turns else None
        self._parking.clear()
        for name in self.queues:
            self.queues[name] = self._new_queue(name)
        for ticket in waiting:
            self._follow(ticket, now)
            self.queues[ticket.request.traffic_class].push(ticket, now=now)
        self._cause = ""

    def _new_queue(self, name: str) -> OrderedQueue:
        if self.tenants is not None:
            self.tenants[name] = TenantTurns(self.signals.demand(name))
        return self._queue_of(name)

    def _queue_of(self, name: str) -> OrderedQueue:
        """Return one more queue of a class, whose tenants take their turns there too."""
        if self.tenants is None:
            return self.make_queue()
        return TenantQueue(self.make_queue, self.tenants[name])

    def charge(self, ticket: Ticket) -> None:
        """Take the predicted cost of a dispatched request from its class and its tenant."""
        request = ticket.request
        self.holds[request.traffic_class].sent += 1
        self.allocator.charge(request.traffic_class, ticket.cost_tokens)
        if self.tenants:
            self.tenants[request.traffic_class].charge(request.tenant, ticket.cost_tokens)

    def settle(self, ticket: Ticket, excess_tokens: float) -> None:
        """Correct that charge once the real usage is known (real minus predicted)."""
        request = ticket.request
        self.allocator.settle(request.traffic_class, excess_tokens)
        if self.tenants:
            self.tenants[request.traffic_class].settle(request.tenant, excess_tokens)

    def emptied(self) -> None:
        """Nothing waits any more: look for nothing; if nothing flies either, forget who owes."""
        self.wake_at, self.closed, self.barred = math.inf, False, ()
        if self.signals.in_flight:
            return
        self.allocator.forget_debts()
        for turns in (self.tenants or {}).values():
            turns.forget_debts()

    def renew(self, allocator: Allocator) -> None:
        """Begin afresh with nobody in it; what was learnt of its load stays."""
        self.allocator = allocator
        self._parking.clear()
        for name in self.queues:  # those that fly settle their charge with their class's queue
            self.queues[name] = self._new_queue(name)
        self._cause = ""
        self.signals.clear_counts()

    def take(self, ticket: Ticket, now: float) -> None:
        """Remove a waiting ticket."""
        name = ticket.request.traffic_class
        self.queues[name].take(ticket, now=now)
        self.signals.unqueued(ticket)

    def next(self, now: float) -> tuple[Ticket, Upstream] | None:
        """Return the ticket that goes now and where to, or None; sets `wake_at`."""
        self.wake_at, self.closed, self.barred = math.inf, False, ()
        signals, only = self.signals, self._only
        opened: Sequence[Upstream]
        if only is None:
            opened, obstacle = self._opened(now)
        else:
            obstacle = only.obstacle(now)
            cause = obstacle[0]
            opened = () if cause else self.upstreams
            if cause != "upstream":
                signals.window = only.capacity.window
                signals.occupied = only.occupied
        if not opened:
            cause = obstacle[0]
            self.closed = obstacle[1] == math.inf
            self.wake_at = obstacle[1]
            if cause != self._cause:
                for hold in self.holds.values():
                    hold.turn(cause, now)
                self._cause = cause
            return None
        self._cause = ""
        if self._parking:
            self._unpark(opened, obstacle, now)
        return self._choose(self._heads(self.queues, now), opened, obstacle, now)

    def _heads(self, names: Iterable[str], now: float) -> dict[str, Ticket]:
        heads: dict[str, Ticket] = {}
        classes, queues = self.signals.classes, self.queues
        for name in names:
            if classes[name].waiting:
                head = queues[name].head(now=now)
                if head is not None:
                    heads[name] = head
        return heads

    def _opened(self, now: float) -> tuple[Sequence[Upstream], tuple[str, float]]:
        """Return the upstreams with room, and the obstacle that falls first at the others."""
        window, occupied = 0.0, 0
        opened = []
        obstacle = NO_OBSTACLE
        shunned = self._shunned(now)
        for upstream in self.upstreams:
            found = upstream.obstacle(now)
            if upstream.name in shunned and not found[0]:
                found = ("upstream", upstream.outlier.probe_at)
            if found[0] != "upstream":  # what is paused has no room to share out
                window += upstream.capacity.window
                occupied += upstream.occupied
            if not found[0]:
                opened.append(upstream)
            elif not obstacle[0] or found[1] < obstacle[1]:
                obstacle = found
        if window > 0:
            self.signals.window, self.signals.occupied = window, occupied
        return opened, obstacle

    def _shunned(self, now: float) -> Sequence[str]:
        """Name the outliers among the upstreams that are not due for a probe, if others serve."""
        for upstream in self.upstreams:
            if upstream.outlier.look_at <= now:
                break
        else:
            return ()
        outliers = [upstream for upstream in self.upstreams if upstream.is_outlier(now)]
        for upstream in self.upstreams:
            if (
                upstream not in outliers
                and upstream.default.breaker.state(now) is BreakerState.CLOSED
            ):
                return [each.name for each in outliers if each.outlier.probe_at > now]
        return ()

    def _choose(
        self,
        heads: dict[str, Ticket],
        opened: Sequence[Upstream],
        elsewhere: tuple[str, float],
        now: float,
    ) -> tuple[Ticket, Upstream] | None:
        """Return the ticket that goes next and to which upstream; None if none may."""
        blocked: list[Ticket] = []
        allocator, signals = self.allocator, self.signals
        while heads:
            name = allocator.choose(heads, signals, now=now)
            if name is None:
                self._hold(heads, BARRED, now)
                self.barred = tuple(heads)
                break
            ticket = heads.pop(name)
            target, obstacle = self._place(ticket, opened, elsewhere, now)
            if self._parking and target is not None:  # hardly ever is anything parked
                if self._owes(ticket, now):
                    target, obstacle = None, OWED
                else:
                    blocked += self._firsts(kind_of(ticket), now)
            if target is not None:
                for each in blocked:
                    each.passes += 1
                return ticket, target
            waits_for_retry = obstacle[0] == "backoff"
            if waits_for_retry or obstacle is OWED or self._only_its_kind(ticket, opened, now):
                heads |= self._park(ticket, obstacle, now)
                continue
            self._hold((name,), obstacle, now)
            blocked.append(ticket)
            if ticket.passes >= PASSES_LIMIT:
                self._hold(heads, obstacle, now)
                break
        return None

    def _place(
        self,
        ticket: Ticket,
        opened: Sequence[Upstream],
        elsewhere: tuple[str, float],
        now: float,
    ) -> tuple[Upstream | None, tuple[str, float]]:
        """Return the upstream where the ticket finishes first, or the obstacle that falls first.

        `elsewhere` is the first obstacle to fall at the upstreams that are closed to everything.
        The upstream of the same conversation comes before all others, those that have failed this
        very ticket after them, the one that has just done so last.
        """
        if len(opened) == 1:
            found = self._obstacle(ticket, opened[0], now)
            return (None, _nearer(elsewhere, found)) if found[0] else (opened[0], found)
        home = None if self.homes is None else self.homes.get(ticket.request.session)
        best: Upstream | None = None
        best_key = (4, math.inf)
        nearest = elsewhere
        for upstream in opened:
            found = self._obstacle(ticket, upstream, now)
            if found[0]:
                nearest = _nearer(nearest, found)
                continue
            name = upstream.name
            if ticket.attempts and ticket.upstream == name:
                rank = 3
            else:
                rank = 2 if name in ticket.failed_at else int(name != home)
            key = (rank, upstream.finish_s(ticket))
            if key < best_key:
                best, best_key = upstream, key
        return best, nearest

    def _park(self, ticket: Ticket, obstacle: tuple[str, float], now: float) -> dict[str, Ticket]:
        """Park a head; return its class's next one, by class, if there is one."""
        name = ticket.request.traffic_class
        queue = self.queues[name]
        if not isinstance(queue, ParkingQueue):
            make = partial(self._queue_of, name)
            queue = self.queues[name] = ParkingQueue(queue, make, self.upstreams)
            self._parking.append(queue)
        queue.park(ticket, alone=obstacle[0] == "backoff", now=now)
        self._keep_out(ticket, obstacle, now)
        return self._heads((name,), now)

    def _unpark(self, opened: Sequence[Upstream], elsewhere: tuple[str, float], now: float) -> None:
        """Let those come back that now have room; the others wake the lane when they will."""
        for queue in self._parking:
            due, next_at = queue.due(opened, self._gate_at, now=now)
            if next_at < math.inf:
                self.wake_at = min(self.wake_at, next_at, elsewhere[1])
            for ticket in due:
                owes = self._owes(ticket, now)
                target, obstacle = None, OWED
                if not owes:
                    target, obstacle = self._place(ticket, opened, elsewhere, now)
                alone = obstacle[0] == "backoff"
                if target is None and (alone or owes or self._only_its_kind(ticket, opened, now)):
                    queue.keep(ticket, alone=alone, now=now)
                    self._keep_out(ticket, obstacle, now)
                else:
                    queue.unpark(ticket, now=now)
                    self._follow(ticket, now)

    def _only_its_kind(self, ticket: Ticket, opened: Sequence[Upstream], now: float) -> bool:
        """Return whether only its model's limits or its account hold it back at each of these."""
        keep = self._keep(ticket.request.traffic_class)
        return all(upstream.holds_only_its_kind(ticket, keep, now) for upstream in opened)

    def _firsts(self, kind: str, now: float) -> list[Ticket]:
        """Return the first parked ticket of a kind, of each class."""
        firsts = (queue.first(kind, now=now) for queue in self._parking)
        return [first for first in firsts if first is not None]

    def _owes(self, ticket: Ticket, now: float) -> bool:
        """Return whether an older one of its kind is parked that too many have gone by."""
        id_ = ticket.request.id
        return any(
            each.passes >= PASSES_LIMIT and each.request.id < id_
            for each in self._firsts(kind_of(ticket), now)
        )

    def _obstacle(self, ticket: Ticket, upstream: Upstream, now: float) -> tuple[str, float]:
        """Return what keeps a ticket from an upstream, and until when; no cause if nothing does."""
        if ticket.attempts:
            unproven = upstream.account(ticket.request.account).unproven(ticket, upstream.name)
            gate_at = self._gate_at(ticket, upstream, unproven=unproven, now=now)
            retry_at = max(ticket.may_retry_at(upstream.name), gate_at)
            if retry_at > now:
                return "backoff", retry_at
        keep = 0.0 if upstream.unlimited else self._keep(ticket.request.traffic_class)
        return upstream.obstacle_to(ticket, keep, now)

    def lets(self, ticket: Ticket, upstream: Upstream, now: float) -> bool:
        """Return whether a ticket that waits may go to an upstream of this lane now."""
        return not self._obstacle(ticket, upstream, now)[0]

    def _gate_at(
        self, ticket: Ticket, /, upstream: Upstream, *, unproven: bool, now: float
    ) -> float:
        """Return when a retry may go there, its own back-off not counted; -inf if at any time.

        It is the same for all of a kind that were sent as often, have paid alike, cost as much
        and are as `unproven`: `core.parked_retries` counts on it.
        """
        account = upstream.account(ticket.request.account)
        breaker = account.circuit(ticket.request.model)
        gate_at = -math.inf
        if self.signals.waiting > 1:
            paced_to = account.due_at(ticket)
            gate_at = breaker.probe_at(ticket.attempts, unproven=unproven, paced_to=paced_to)
        if breaker.troubled and not ticket.retry_paid:
            # A spent budget leaves one retry in that time, or nobody would see it recover.
            budget_at = self.retries.next_at(now=now)
            gate_at = max(gate_at, min(budget_at, breaker.last_sent_at + breaker.gap_s))
        return gate_at

    def _keep(self, name: str) -> float:
        """Return the share of a stated limit's pace that the class must leave to others."""
        classes = self.signals.classes
        if len(classes) == 1:
            return PACE_ALONE
        own_s = classes[name].slack_s
        return 0.0 if all(own_s <= each.slack_s for each in classes.values()) else PACE_OF_OTHERS

    def _hold(self, names: Iterable[str], obstacle: tuple[str, float], now: float) -> None:
        """Note what keeps the heads of these classes."""
        cause, until = obstacle
        if until < self.wake_at:
            self.wake_at = until
        for name in names:
            self.holds[name].turn(cause, now)

    def _keep_out(self, ticket: Ticket, obstacle: tuple[str, float], now: float) -> None:
        """Note what keeps a parked ticket."""
        cause, until = obstacle
        if until < self.wake_at:
            self.wake_at = until
        if ticket.held_by != cause:
            ticket.hold(cause, now)

    def is_too_large(self, ticket: Ticket) -> bool:
        """Return whether every upstream charges more for the ticket than a whole window allows."""
        account = ticket.request.account
        return self._reserving and all(
            each.account(account).limits.never_fits(ticket) for each in self.upstreams
        )

    def has_refuge(self, ticket: Ticket, now: float) -> bool:
        """Return whether there is a sound upstream that has not failed the ticket."""
        return any(
            upstream.name not in ticket.failed_at and upstream.sound(ticket.request, now)
            for upstream in self.upstreams
        )

    def retry_after_s(self, request: Request, now: float) -> float:
        """Return when a full queue will have drained, as far as the fit can tell."""
        open_s = self.outage.open_at(request, now) - now
        drain_s = self.signals.waiting_work_s / max(1.0, min(self.signals.window, 1e9))
        return min(LONGEST_RETRY_S, max(1.0, open_s + drain_s))

    def retry_at(self, ticket: Ticket, now: float) -> float:
        """Return when a refused ticket may first be sent again, to whichever upstream."""
        return min(
            max(
                upstream.circuit(ticket.request).open_at(now),
                ticket.may_retry_at(upstream.name),
            )
            for upstream in self.upstreams
        )


def _nearer(one: tuple[str, float], other: tuple[str, float]) -> tuple[str, float]:
    """Return the obstacle that falls first; a wait for the retry budget keeps its name."""
    first = other if not one[0] or other[1] < one[1] else one
    return ("backoff", first[1]) if "backoff" in (one[0], other[0]) else first
