"""The words in which the core's stories are told: a scheduler, its requests, what it answered."""

import math
from collections.abc import Iterable

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Decision,
    Defer,
    Dispatch,
    Event,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.policy import Admit, DeferFor, Shed, Verdict
from penstock.core.scheduler import Scheduler
from penstock.core.settings import Limits, PolicySpec, Settings, Stack, UpstreamSettings
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket
from penstock.core.upstream.ledger import Upstream
from penstock.policies.registry import build_scheduler, make

INTERACTIVE = TrafficClass("interactive", weight=4.0)
BATCH = TrafficClass("batch", weight=1.0)
BOTH = (INTERACTIVE, BATCH)
DEAR_TOKENS = 2000.0
"""What a request of the top rung costs in these stories."""


def request(
    id_: int,
    traffic_class: str = "batch",
    *,
    at: float = 0.0,
    cost: float = 100.0,
    p90: float | None = None,
    deadline: float = math.inf,
    expires_at: float = math.inf,
    model: str = "",
    session: str = "",
    prompt_tokens: int = 0,
    tenant: str = "",
) -> Request:
    """Return a request that arrived at `at` and is predicted to cost `cost` output tokens."""
    estimate = TokenEstimate(cost, cost if p90 is None else p90, "test")
    return Request(
        id_,
        traffic_class,
        at,
        estimate,
        deadline=deadline,
        expires_at=expires_at,
        model=model,
        session=session,
        prompt_tokens=prompt_tokens,
        tenant=tenant,
    )


def upstream(
    name: str = "default",
    *,
    window: float = 1.0,
    window_tokens: float = math.inf,
    models: tuple[str, ...] = (),
    limits: Limits | None = None,
    base_s: float = 1.0,
    s_per_token: float = 0.0,
) -> UpstreamSettings:
    """Return an upstream with a fixed window where, at first sight, every reply takes `base_s`.

    A window of inf is none at all.
    """
    fixed = PolicySpec("fixed", {"window": window, "window_tokens": window_tokens})
    return UpstreamSettings(
        name,
        models,
        fixed if window < math.inf else PolicySpec("unlimited"),
        limits or Limits(),
        base_s,
        s_per_token,
    )


def scheduler(
    *upstreams: UpstreamSettings,
    window: float = 1.0,
    classes: tuple[TrafficClass, ...] = BOTH,
    allocation: PolicySpec = PolicySpec("fifo"),
    ordering: PolicySpec = PolicySpec("fifo"),
    overload: PolicySpec = PolicySpec("always_admit"),
    queue_limit: int = 1000,
    sticky: bool = False,
    tenant_turns: bool = True,
    retry_share: float = 1.0,
    max_attempts: int = 8,
) -> Scheduler:
    """Return a scheduler; unless told otherwise one plain queue before one upstream."""
    return build_scheduler(
        Settings(
            classes,
            upstreams or (upstream(window=window),),
            Stack(allocation, ordering, overload),
            queue_limit=queue_limit,
            sticky=sticky,
            tenant_turns=tenant_turns,
            retry_share=retry_share,
            max_attempts=max_attempts,
        )
    )


class Bouncer:
    """Defers the top rung by `delay_s` until `until`, at most `returns` times, then sheds it.

    An overload policy of the tests' own, so that the core's stories do not hang on tuned numbers.
    """

    def __init__(self, *, delay_s: float = 0.5, returns: int = 2, until: float = math.inf) -> None:
        """Start with nobody at the door."""
        self._delay_s, self._returns, self._until = delay_s, returns, until

    def judge(self, ticket: Ticket, signals: Signals, *, now: float) -> Verdict:
        """Defer, then shed, what is dear."""
        if ticket.rung != "xlong" or now >= self._until:
            return Admit()
        if ticket.deferrals < self._returns:
            return DeferFor(self._delay_s, "overload")
        return Shed("shed", 7.0)


def guarded(bouncer: Bouncer, *, window: float = 1.0, queue_limit: int = 1000) -> Scheduler:
    """Return a scheduler with one plain queue, one upstream and this bouncer at its door."""
    door = upstream(window=window)
    assert door.capacity is not None
    return Scheduler(
        Settings(BOTH, (door,), queue_limit=queue_limit),
        (Upstream(door, make("capacity", door.capacity)),),
        overload=bouncer,
        make_allocator=lambda: make("allocation", PolicySpec("fifo"), BOTH),
        make_queue=lambda: make("ordering", PolicySpec("fifo")),
    )


def overloaded(severity: float) -> Signals:
    """Return signals of a lane in which what waits fits into nobody's slack."""
    return Signals(window=0.001, waiting_work_s=1.0, severity=severity)


Told = tuple[object, ...]


def told(actions: Iterable[Action]) -> list[Told]:
    """Return what was decided, without the reasons."""
    return [_told(action) for action in decisions(actions)]


def decisions(actions: Iterable[Action]) -> list[Decision]:
    """Return the actions that a caller is told."""
    return [action for action in actions if isinstance(action, Dispatch | Defer | Reject)]


def _told(action: Decision) -> Told:
    if isinstance(action, Dispatch):
        return ("dispatch", action.request.id, action.upstream)
    if isinstance(action, Defer):
        return ("defer", action.request.id, action.until)
    return ("reject", action.request.id, action.reason)


def sent(actions: Iterable[Action]) -> list[int]:
    """Return the ids of the requests that were dispatched, in order."""
    return [action.request.id for action in actions if isinstance(action, Dispatch)]


def tell(penstock: Scheduler, *story: tuple[float, Event]) -> list[Told]:
    """Tell the scheduler a story and return all that it answered."""
    return [word for now, event in story for word in told(penstock.handle(event, now=now))]


def arrive(penstock: Scheduler, *requests: Request) -> list[Told]:
    """Let requests arrive, each at its own time, and return what was decided."""
    return [
        word for one in requests for word in told(penstock.handle(Arrived(one), now=one.arrived_at))
    ]


def complete(penstock: Scheduler, id_: int, *, now: float, tokens: int | None = 100) -> list[Told]:
    """Let a reply end and return what was decided."""
    return told(penstock.handle(Completed(id_, tokens), now=now))


def refuse_first(penstock: Scheduler, *, account: str = "") -> None:
    """Let each upstream refuse the first request of all, which speaks about that request alone."""
    first = request(-1, at=-1.0)
    first.account = account
    now, words = -1.0, arrive(penstock, first)
    while words:
        now += 0.1
        words = tell(penstock, (now, Throttled(-1, RefusalCause.RATE)), (now, Woke()))
    tell(penstock, (now, Cancelled(-1)))


def dispatch_times(penstock: Scheduler, *requests: Request) -> list[float]:
    """Let requests arrive at 0 s and wake the scheduler as it wishes; return when each went."""
    times = [0.0 for word in arrive(penstock, *requests) if word[0] == "dispatch"]
    while (at := penstock.next_wakeup()) is not None:
        times += [at for word in told(penstock.handle(Woke(), now=at)) if word[0] == "dispatch"]
    return times


def is_at_rest(penstock: Scheduler) -> bool:
    """Say whether nothing waits, flies or is held, and nothing is owed."""
    seen = penstock.snapshot()
    return (
        (seen.waiting, seen.in_flight, seen.deferred) == (0, 0, 0)
        and all(u.in_flight_tokens == 0.0 for u in seen.upstreams.values())
        and all(lane.waiting_work_s == 0.0 and lane.pressure == 0.0 for lane in seen.lanes)
        and all(
            (c.waiting, c.waiting_tokens, c.in_flight, c.deficit_tokens) == (0, 0.0, 0, 0.0)
            for lane in seen.lanes
            for c in lane.classes.values()
        )
        and penstock.next_wakeup() is None
    )
