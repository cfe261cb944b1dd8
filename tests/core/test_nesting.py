"""Hold and wait: a call that is made inside another goes in its place, at any window."""

import random
from dataclasses import replace

import pytest

from penstock.core.events import (
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Event,
    Failed,
    RefusalCause,
    Throttled,
    Woke,
)
from penstock.core.model import Request
from penstock.core.scheduler import Scheduler
from penstock.core.settings import Limits
from penstock.errors import ProtocolError
from tests.core.story import decisions, request, scheduler, upstream


def nested(id_: int, inside: int, at: float = 0.0) -> Request:
    return replace(request(id_, at=at), inside=inside)


def sent(penstock: Scheduler, now: float, event: Event) -> list[int]:
    """Return who is dispatched by the event."""
    answers = decisions(penstock.handle(event, now=now))
    return [each.request.id for each in answers if isinstance(each, Dispatch)]


def test_a_nested_call_passes_a_full_window_and_the_queue() -> None:
    penstock = scheduler(window=1)
    assert sent(penstock, 0.0, Arrived(request(1))) == [1]
    assert sent(penstock, 0.0, Arrived(request(2))) == []
    assert sent(penstock, 0.0, Arrived(nested(3, inside=1))) == [3]
    assert sent(penstock, 1.0, Completed(3, 100)) == []  # the place is the outer call's again
    assert sent(penstock, 2.0, Completed(1, 100)) == [2]


def test_one_nested_call_at_a_time_goes_in_a_place_and_the_next_follows_it() -> None:
    penstock = scheduler(window=1)
    sent(penstock, 0.0, Arrived(request(1)))
    assert sent(penstock, 0.0, Arrived(nested(2, inside=1))) == [2]
    assert sent(penstock, 0.0, Arrived(nested(3, inside=1))) == []
    assert sent(penstock, 0.0, Arrived(nested(4, inside=2))) == [4]  # and inside that one
    assert sent(penstock, 1.0, Completed(4, 100)) == []
    assert sent(penstock, 1.0, Completed(2, 100)) == [3]


def test_where_the_window_has_room_nested_calls_go_side_by_side() -> None:
    penstock = scheduler(window=3)
    sent(penstock, 0.0, Arrived(request(1)))
    assert sent(penstock, 0.0, Arrived(nested(2, inside=1))) == [2]
    assert sent(penstock, 0.0, Arrived(nested(3, inside=1))) == [3]
    assert sent(penstock, 0.0, Arrived(nested(4, inside=1))) == [4]
    assert sent(penstock, 0.0, Arrived(nested(5, inside=1))) == []


def test_an_outer_call_that_ends_first_leaves_its_place_to_the_nested_call() -> None:
    penstock = scheduler(window=1)
    sent(penstock, 0.0, Arrived(request(1)))
    sent(penstock, 0.0, Arrived(nested(2, inside=1)))
    assert sent(penstock, 0.0, Arrived(request(3))) == []
    assert sent(penstock, 1.0, Completed(1, 100)) == []  # the nested one is in the window now
    assert sent(penstock, 2.0, Completed(2, 100)) == [3]


def test_stated_limits_hold_for_nested_calls_and_a_timer_looks_again() -> None:
    penstock = scheduler(upstream(window=1, limits=Limits(requests_per_min=1)))
    sent(penstock, 0.0, Arrived(request(1)))
    assert sent(penstock, 0.0, Arrived(nested(2, inside=1))) == []
    due = penstock.next_wakeup()
    assert due is not None
    assert 60.0 <= due < 63.0
    assert sent(penstock, due, Woke()) == [2]


def test_a_nested_call_that_is_refused_comes_back_in_the_same_place() -> None:
    penstock = scheduler(window=1)
    sent(penstock, 0.0, Arrived(request(1)))
    sent(penstock, 0.0, Arrived(nested(2, inside=1)))
    assert sent(penstock, 1.0, Throttled(2, RefusalCause.RATE, retry_after_s=2.0)) == []
    due = penstock.next_wakeup()
    assert due is not None
    assert due == pytest.approx(3.0)
    assert sent(penstock, due, Woke()) == [2]


def test_an_outer_call_that_is_unknown_or_gone_means_nothing() -> None:
    penstock = scheduler(window=1)
    sent(penstock, 0.0, Arrived(request(1)))
    assert sent(penstock, 0.0, Arrived(nested(2, inside=77))) == []
    assert sent(penstock, 1.0, Completed(1, 100)) == [2]
    assert sent(penstock, 2.0, Arrived(nested(3, inside=1, at=2.0))) == []


def test_an_impossible_outer_call_is_refused() -> None:
    with pytest.raises(ProtocolError, match="inside='one'"):
        scheduler().handle(Arrived(nested(2, inside="one")), now=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(30))
def test_pipelines_of_any_depth_end_at_any_window_and_leave_nothing(seed: int) -> None:
    """Every pipeline makes calls inside its calls and ends only when they have ended."""
    dice = random.Random(seed)
    window = dice.randint(1, 3)
    penstock = scheduler(window=window)
    inside: dict[int, int] = {}
    flying: list[int] = []
    open_: set[int] = set()
    now, next_id, most = 0.0, 0, 0

    def tell(event: Event) -> None:
        for each in decisions(penstock.handle(event, now=now)):
            assert isinstance(each, Dispatch)
            flying.append(each.request.id)

    def submit(outer: int | None) -> None:
        nonlocal next_id
        next_id += 1
        open_.add(next_id)
        if outer is not None:
            inside[next_id] = outer
        tell(Arrived(replace(request(next_id, at=now), inside=outer)))

    for _ in range(20):
        submit(None)
    for _ in range(20_000):
        now += 0.1
        due = penstock.next_wakeup()
        if due is not None and (due <= now or not flying):
            now = max(now, due)
            tell(Woke())
        if not flying:
            if not open_:
                break
            continue
        one = dice.choice(flying)
        waits_for = [each for each in open_ if inside.get(each) == one]
        if next_id < 150 and dice.random() < 0.6:
            submit(one)
        elif not waits_for:
            flying.remove(one)
            open_.discard(one)
            ends: list[Event] = [Completed(one, 50), Cancelled(one), Failed(one)]
            tell(dice.choice(ends))
        state = penstock.snapshot().upstreams["default"]
        most = max(most, penstock._tickets.upstreams["default"].occupied)
        assert 0 <= state.in_flight == len(flying)
    assert open_ == set()
    assert most <= window + 1  # a holder that ended first left its place to a nested call
    assert penstock._tickets.upstreams["default"].occupied == 0


def test_a_nested_call_of_another_model_waits_in_its_own_lane_and_goes_all_the_same() -> None:
    here, there = upstream("here", models=("big", "small")), upstream("there", models=("small",))
    penstock = scheduler(here, there)
    assert sent(penstock, 0.0, Arrived(request(1, model="big"))) == [1]
    assert sent(penstock, 0.0, Arrived(request(2, model="small"))) == [2]
    small = replace(nested(3, inside=1), model="small")
    assert sent(penstock, 0.0, Arrived(small)) == [3]
    assert sent(penstock, 0.0, Arrived(request(4, model="big"))) == []
    assert sent(penstock, 1.0, Completed(3, 100)) == []
    assert sent(penstock, 2.0, Completed(1, 100)) == [4]
