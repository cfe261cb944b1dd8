"""A decision costs O(log n) in the backlog: counted in calls and comparisons, not in seconds."""

import math
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from penstock.core.events import (
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Event,
    RefusalCause,
    Throttled,
    Woke,
)
from penstock.core.scheduler import Scheduler
from penstock.core.settings import PolicySpec
from penstock.policies.registry import POLICIES
from tests.core.story import arrive, complete, decisions, request, scheduler, tell

SHORT, LONG = 2**8, 2**14


class Counted(float):
    """A deadline that counts how often it is compared, and so do the keys made from it."""

    compared = 0

    def __lt__(self, other: float) -> bool:
        Counted.compared += 1
        return float.__lt__(self, other)

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return float.__eq__(self, other)

    __hash__ = float.__hash__

    def __sub__(self, other: float) -> "Counted":
        return Counted(float.__sub__(self, other))

    def __add__(self, other: float) -> "Counted":
        return Counted(float.__add__(self, other))


def cost_of(work: Callable[[], object]) -> int:
    """Return the calls made and the keys compared."""
    calls = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    Counted.compared = 0
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls + Counted.compared


def backlogged(n: int, allocation: str, ordering: str) -> Scheduler:
    penstock = scheduler(
        window=2,
        queue_limit=10**6,
        allocation=PolicySpec(allocation),
        ordering=PolicySpec(ordering),
        overload=PolicySpec("cost_ladder", {"defer_at": {}, "shed_at": {}}),
    )
    for id_ in range(n):
        deadline = Counted(10_000.0 + (id_ * 7919) % 1000)
        name = ("interactive", "batch")[id_ % 2]
        penstock.handle(
            Arrived(request(id_, name, deadline=deadline, expires_at=deadline)), now=0.0
        )
    return penstock


def mean_cost(n: int, allocation: str, ordering: str) -> float:
    """Return the mean cost of an arrival, a completion and a cancellation with n waiting."""
    penstock = backlogged(n, allocation, ordering)
    flying: list[int] = [0, 1]
    total, events, now = 0, 0, 0.0

    def tell(event: Event) -> None:
        flying.extend(
            a.request.id for a in penstock.handle(event, now=now) if isinstance(a, Dispatch)
        )

    for k in range(60):
        now += 0.01
        deadline = Counted(10_000.0 + (k * 7919) % 1000)
        story: list[Event] = [
            Arrived(request(n + k, "batch", at=now, deadline=deadline, expires_at=deadline)),
            Completed(flying.pop(0), 100),
            Cancelled(n // 2 + 2 * k),
        ]
        for event in story:
            if isinstance(event, Cancelled) and event.request_id in flying:
                continue
            total += cost_of(lambda event=event: tell(event))  # type: ignore[misc]
            events += 1
    return total / events


@pytest.mark.parametrize("allocation", ["adaptive_drr", "drr"])
@pytest.mark.parametrize("ordering", sorted(POLICIES["ordering"]))
def test_a_decision_among_16_thousand_costs_little_more_than_among_256(
    allocation: str, ordering: str
) -> None:
    few, many = mean_cost(SHORT, allocation, ordering), mean_cost(LONG, allocation, ordering)

    # 64 times the backlog may add the depth that its heaps gain: 6 levels, six steps each.
    assert many - few <= 6 * math.log2(LONG / SHORT)


def test_the_thousandth_request_in_a_row_costs_what_the_hundredth_cost() -> None:
    penstock = scheduler(window=2)

    def serve(id_: int) -> None:
        penstock.handle(Arrived(request(id_, "batch", at=id_)), now=id_)
        penstock.handle(Completed(id_, 100), now=id_ + 0.5)

    costs = [cost_of(lambda id_=id_: serve(id_)) for id_ in range(1000)]  # type: ignore[misc]

    assert sum(costs[900:]) <= sum(costs[100:200])


def refused(n: int) -> Scheduler:
    """Return a scheduler after n calls at once were told to wait for an hour."""
    penstock = scheduler(window=n + 8, queue_limit=10**6)
    for id_ in range(2):
        arrive(penstock, request(id_, at=float(id_)))
        complete(penstock, id_, now=id_ + 0.5)
    arrive(penstock, *(request(id_, at=2.0) for id_ in range(2, n + 2)))
    for id_ in range(2, n + 2):
        tell(penstock, (3.0 + id_ / n, Throttled(id_, RefusalCause.OVERLOAD, 60.0, 0.5)))
    return penstock


def mean_cost_beside(n: int, *, well: bool) -> float:
    """Return the mean cost of what other calls do while n wait for their next attempt."""
    penstock, costs = refused(n), []
    flying: list[int] = []

    def handle(event: Event) -> None:
        flying.extend(a.request.id for a in decisions(penstock.handle(event, now=now)))

    for k in range(200):
        now = 4.5 + k / 4
        story: list[Event] = [Arrived(request(n + 2 + k, at=now)), Woke()]
        for id_ in flying:
            story.append(
                Completed(id_, 100) if well else Throttled(id_, RefusalCause.OVERLOAD, 60.0)
            )
        flying.clear()
        costs += [cost_of(lambda event=event: handle(event)) for event in story]  # type: ignore[misc]
    half = costs[len(costs) // 2 :]  # at the first of them all n are looked at, and parked
    return sum(half) / len(half)


@pytest.mark.parametrize("well", [False, True], ids=["refuses", "serves"])
def test_what_waits_for_its_next_attempt_costs_others_nothing_however_much_it_is(
    well: bool,
) -> None:
    few, many = (mean_cost_beside(n, well=well) for n in (SHORT, 2**10))

    assert many <= few + 1.0
