"""What the driver slept through is not taken for the provider's slowness."""

import math

import pytest

from penstock.core.events import (
    Arrived,
    Completed,
    DriverStalled,
    Event,
    Failed,
    FirstToken,
    RefusalCause,
    Throttled,
)
from penstock.core.scheduler import Scheduler
from penstock.errors import ProtocolError
from tests.core.story import BOTH, request, scheduler, upstream


def told(penstock: Scheduler, *events: tuple[float, Event]) -> None:
    for now, event in events:
        penstock.handle(event, now=now)


def steady(replies: int) -> Scheduler:
    """Return a scheduler whose provider has answered every call after 1 s."""
    penstock = scheduler(upstream(window=math.inf))
    for id_ in range(replies):
        told(
            penstock,
            (float(id_), Arrived(request(id_, at=float(id_)))),
            (id_ + 0.25, FirstToken(id_)),
            (id_ + 1.0, Completed(id_, 100)),
        )
    return penstock


def state(penstock: Scheduler) -> tuple[float, dict[str, tuple[float, float]], int]:
    here = penstock.snapshot().upstreams["default"]
    return here.slowdown, here.service, here.unmeasured


@pytest.mark.parametrize("stall", [True, False])
def test_a_reply_that_came_during_a_stall_says_nothing_about_the_provider(stall: bool) -> None:
    penstock = steady(20)
    told(penstock, (30.0, Arrived(request(99, at=30.0))))
    before = state(penstock)
    if stall:
        told(penstock, (39.99, DriverStalled(since=30.5)))
    told(penstock, (40.0, Completed(99, 100)))

    assert (state(penstock)[:2] == before[:2]) is stall
    assert state(penstock)[2] == stall


def test_a_call_that_was_being_sent_when_the_stall_began_says_nothing() -> None:
    penstock = steady(20)
    told(penstock, (30.0, Arrived(request(99, at=30.0))))
    before = state(penstock)
    told(penstock, (35.0, DriverStalled(since=30.02)), (36.0, Completed(99, 100)))

    assert state(penstock)[:2] == before[:2]


def test_a_reply_between_two_stalls_is_evidence() -> None:
    penstock = steady(20)
    told(penstock, (30.0, Arrived(request(99, at=30.0))))
    before = state(penstock)
    told(penstock, (33.0, DriverStalled(since=32.0)), (38.0, Completed(99, 100)))
    told(penstock, (41.0, DriverStalled(since=40.0)))

    assert state(penstock)[0] > before[0]
    assert state(penstock)[2] == 0


def test_time_outs_that_fire_after_a_stall_open_no_circuit() -> None:
    def open_at(*, stall: bool) -> float:
        penstock = scheduler(upstream(window=math.inf))
        told(penstock, *((0.0, Arrived(request(id_))) for id_ in range(5)))
        if stall:
            told(penstock, (30.0, DriverStalled(since=0.5)))
        for id_ in range(4):
            told(penstock, (30.0, Failed(id_, retryable=False, jitter=1.0)))
        told(penstock, (30.0, Throttled(4, RefusalCause.SLOW_FIRST_TOKEN, jitter=1.0)))
        return penstock.snapshot().upstreams["default"].open_at

    assert open_at(stall=True) == 30.0
    assert open_at(stall=False) > 30.0


def test_the_next_attempt_after_a_stall_is_measured_again() -> None:
    penstock = steady(20)
    told(
        penstock,
        (30.0, Arrived(request(99, at=30.0))),
        (31.0, DriverStalled(since=30.0)),
        (31.0, Throttled(99, RefusalCause.RATE, retry_after_s=1.0)),
    )
    told(penstock, (35.0, Arrived(request(100, at=35.0))))
    told(penstock, (45.0, Completed(99, 100)))

    assert state(penstock)[0] > 0.0


@pytest.mark.parametrize("since", [2.0, math.nan, -math.inf])
def test_a_stall_that_began_at_no_time_is_refused(since: float) -> None:
    penstock = scheduler(classes=BOTH)
    with pytest.raises(ProtocolError, match="since="):
        penstock.handle(DriverStalled(since), now=1.0)
