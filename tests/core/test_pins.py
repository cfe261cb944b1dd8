"""What an operator pins holds above what was learnt and configured, and ends by itself."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import (
    Arrived,
    Completed,
    Dispatch,
    Pinned,
    Reconfigured,
    RefusalCause,
    Throttled,
    WindowMoved,
    Woke,
)
from penstock.core.settings import PolicySpec
from penstock.errors import ProtocolError
from tests.core.story import (
    arrive,
    complete,
    refuse_first,
    request,
    scheduler,
    sent,
    tell,
    upstream,
)


def pin(what: str, value: float = 0.0, *, name: str = "default", until: float = 10.0) -> Pinned:
    return Pinned(what, name, value, until)


def test_a_pinned_window_holds_until_its_end_and_is_told_with_its_reason() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, *(request(id_) for id_ in range(1, 6)))

    actions = penstock.handle(pin("window", 3), now=1.0)
    assert sent(actions) == [2, 3]
    [moved] = [each for each in actions if isinstance(each, WindowMoved)]
    assert (moved.before, moved.after, moved.because) == (1, 3, "pin")
    assert penstock.snapshot().pins == (pin("window", 3),)
    assert penstock.next_wakeup() == 10.0

    ended = penstock.handle(Woke(), now=10.0)
    [moved] = [each for each in ended if isinstance(each, WindowMoved)]
    assert (moved.after, moved.because) == (1, "pin_ended")
    assert penstock.snapshot().pins == ()
    assert penstock.next_wakeup() is None
    assert complete(penstock, 1, now=11.0) == []  # two still fly


def test_the_policy_below_a_pinned_window_goes_on_learning() -> None:
    settings = replace(upstream(), capacity=PolicySpec("aimd", {"initial": 16}))
    penstock = scheduler(settings)
    refuse_first(penstock)
    tell(penstock, (0.0, pin("window", 4)))
    arrive(penstock, *(request(id_, at=0.5) for id_ in range(1, 5)))
    tell(penstock, (1.0, Throttled(1, RefusalCause.OVERLOAD)))

    assert penstock.snapshot().upstreams["default"].window == 4
    tell(penstock, (10.0, Woke()))
    assert penstock.snapshot().upstreams["default"].window < 16


def test_nothing_goes_to_an_upstream_while_its_pause_is_pinned() -> None:
    penstock = scheduler(upstream("a"), upstream("b", base_s=9.0))
    tell(penstock, (0.0, pin("pause", name="a")))

    assert arrive(penstock, request(1, at=1.0)) == [("dispatch", 1, "b")]
    assert arrive(penstock, request(2, at=1.0)) == []
    assert tell(penstock, (10.0, Woke())) == [("dispatch", 2, "a")]


def test_a_pin_of_the_past_ends_one_like_it() -> None:
    penstock = scheduler(window=1)
    tell(penstock, (0.0, pin("pause")))
    assert arrive(penstock, request(1, at=1.0)) == []

    assert tell(penstock, (2.0, pin("pause", until=2.0))) == [("dispatch", 1, "default")]


def test_a_pinned_weight_is_the_share_of_its_class() -> None:
    def served(*pins: Pinned) -> list[str]:
        penstock = scheduler(window=1, allocation=PolicySpec("drr"))
        tell(penstock, *((0.0, each) for each in pins))
        for id_ in range(0, 400, 2):
            arrive(
                penstock, request(id_, "batch", cost=500), request(id_ + 1, "interactive", cost=500)
            )
        flying, names = 0, []
        for step in range(1, 101):
            [action] = penstock.handle(Completed(flying, 500), now=float(step))
            assert isinstance(action, Dispatch)
            flying = action.request.id
            names.append(action.request.traffic_class)
        return names

    assert 15 <= served().count("batch") <= 25
    turned = served(pin("weight", 16.0, name="batch", until=1e6))
    assert 75 <= turned.count("batch") <= 85


def test_pins_survive_a_reload_and_go_with_what_they_hold() -> None:
    penstock = scheduler(upstream("a"), upstream("b"))
    tell(penstock, (0.0, pin("window", 3, name="a")), (0.0, pin("pause", name="b")))
    changed = replace(
        penstock.settings,
        upstreams=(replace(upstream("a"), capacity=PolicySpec("fixed", {"window": 7})),),
    )
    tell(penstock, (1.0, Reconfigured(changed)))

    assert penstock.snapshot().pins == (pin("window", 3, name="a"),)
    assert penstock.snapshot().upstreams["a"].window == 3
    tell(penstock, (10.0, Woke()))
    assert penstock.snapshot().upstreams["a"].window == 7


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (pin("window", 0.0), "nothing is ever sent"),
        (pin("window", 1.5), "whole"),
        (pin("weight", 0.0, name="batch"), "weight of batch"),
        (pin("window", 2, name="x"), "window and pause are of default"),
        (pin("weight", 2.0), "weight is of interactive, batch"),
        (pin("colour", 2.0), "nothing to pin"),
        (pin("pause", until=float("inf")), "a pin ends by itself"),
        (pin("pause", until=float("nan")), "a pin ends by itself"),
    ],
)
def test_what_cannot_be_pinned_is_refused_and_changes_nothing(wrong: Pinned, words: str) -> None:
    penstock = scheduler(window=2)
    with pytest.raises(ProtocolError, match=words):
        penstock.handle(wrong, now=0.0)

    assert penstock.snapshot().pins == ()
    assert arrive(penstock, request(1)) == [("dispatch", 1, "default")]


@given(st.lists(st.tuples(st.sampled_from(["window", "pause"]), st.integers(1, 9)), max_size=8))
def test_whatever_was_pinned_nothing_is_left_of_it_after_its_end(
    pins: list[tuple[str, int]],
) -> None:
    penstock = scheduler(window=2)
    for at, (what, value) in enumerate(pins):
        tell(penstock, (float(at), pin(what, value, until=at + value)))
    tell(penstock, (30.0, Woke()))

    assert penstock.snapshot().pins == ()
    assert penstock.snapshot().upstreams["default"].window == 2
    actions = [
        action
        for id_ in (1, 2, 3)
        for action in penstock.handle(Arrived(request(id_, at=30.0)), now=30.0)
    ]
    assert sent(actions) == [1, 2]
