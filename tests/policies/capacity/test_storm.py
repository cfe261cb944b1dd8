"""A provider refuses everything for a minute: nobody is lost, little is repeated, work resumes."""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from penstock.core.events import (
    Action,
    Arrived,
    Completed,
    Dispatch,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.settings import Settings
from penstock.policies.registry import build_scheduler
from penstock.sim.providers.base import Happening, Job
from penstock.sim.providers.registry import build_provider

CLIENTS, PLACES = 100, 16
FROM_S, UNTIL_S, END_S = 60.0, 120.0, 180.0
ANSWER_S = 0.02

Due = tuple[float, int, Callable[[], None]]


@dataclass
class Seen:
    """What clients and provider saw."""

    replies_at: list[float] = field(default_factory=list)
    attempts_at: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    answered: dict[int, int] = field(default_factory=dict)

    def goodput(self, since: float, until: float) -> float:
        """Return replies a second."""
        return sum(since <= at < until for at in self.replies_at) / (until - since)


def storm(cause: RefusalCause, retry_after_s: float | None) -> Seen:
    """Let each client ask again as soon as it is answered, through a minute of refusals."""
    dice = random.Random(7)
    classes = (TrafficClass("interactive", estimate=TokenEstimate(200, 300)),)
    penstock = build_scheduler(Settings(classes))
    provider = build_provider({"model": "slots", "slots": PLACES}, seed=1)
    seen = Seen()
    due: list[Due] = []
    ticks = iter(range(10**9))
    lengths: dict[int, int] = {}
    now = 0.0

    def ask() -> None:
        id_ = len(seen.requests)
        seen.requests.append(now)
        lengths[id_] = dice.randint(100, 300)
        patient = Request(
            id_,
            "interactive",
            now,
            TokenEstimate(200, 300),
            deadline=now + 300.0,
            expires_at=now + 300.0,
        )
        carry_out(penstock.handle(Arrived(patient), now=now))

    def refuse(id_: int) -> None:
        event = Throttled(id_, cause, retry_after_s, jitter=dice.random())
        carry_out(penstock.handle(event, now=now))

    def carry_out(actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Reject):
                seen.rejected.append(action.reason)
            elif isinstance(action, Dispatch):
                id_ = action.request.id
                seen.attempts_at.append(now)
                if FROM_S <= now < UNTIL_S:
                    refusal: Due = (now + ANSWER_S, next(ticks), partial(refuse, id_))
                    heapq.heappush(due, refusal)
                else:
                    provider.submit(Job(id_, lengths[id_]), now=now)

    for client in range(CLIENTS):
        heapq.heappush(due, (client / 100.0, next(ticks), ask))
    while now < END_S:
        wakeup = penstock.next_wakeup()
        soonest = due[0][0] if due else math.inf
        now = min(provider.next_event_at(), soonest, math.inf if wakeup is None else wakeup)
        for event in provider.advance(now=now):
            if event.what is Happening.FINISHED:
                id_ = event.job_id
                seen.replies_at.append(now)
                seen.answered[id_] = seen.answered.get(id_, 0) + 1
                carry_out(penstock.handle(Completed(id_, lengths[id_]), now=now))
                ask()
        if soonest <= now:
            heapq.heappop(due)[2]()
        elif wakeup is not None and wakeup <= now:
            carry_out(penstock.handle(Woke(), now=now))
    return seen


@pytest.mark.parametrize("cause", [RefusalCause.RATE, RefusalCause.OVERLOAD])
@pytest.mark.parametrize("retry_after_s", [None, 5.0])
def test_a_hundred_clients_live_through_a_minute_of_refusals(
    cause: RefusalCause, retry_after_s: float | None
) -> None:
    seen = storm(cause, retry_after_s)

    before = seen.goodput(20.0, FROM_S)
    assert before > 10.0
    assert seen.goodput(UNTIL_S + 30.0, END_S) >= 0.95 * before
    assert seen.rejected == []
    assert set(seen.answered.values()) == {1}
    in_storm = sum(FROM_S <= at < UNTIL_S for at in seen.attempts_at)
    asking = CLIENTS + sum(FROM_S <= at < UNTIL_S for at in seen.requests)
    assert in_storm <= 1.1 * asking
