"""A heap of due times that is cheap to cancel."""

import math

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.tickets import Timers


def test_what_is_due_comes_in_order_of_time_then_of_sequence_number() -> None:
    timers = Timers()
    for id_, at in ((3, 2.0), (2, 1.0), (1, 2.0), (4, 9.0)):
        timers.set(id_, at)

    assert timers.next_at() == 1.0
    assert timers.pop_due(now=2.0) == [2, 1, 3]
    assert timers.next_at() == 9.0
    assert len(timers) == 1


def test_a_second_setting_replaces_the_first() -> None:
    timers = Timers()
    timers.set(1, 5.0)
    timers.set(1, 8.0)

    assert timers.pop_due(now=7.0) == []
    assert timers.pop_due(now=8.0) == [1]


def test_a_timer_set_again_to_the_same_time_comes_due_once() -> None:
    timers = Timers()
    timers.set(1, 5.0)
    timers.cancel(1)
    timers.set(1, 5.0)

    assert timers.pop_due(now=9.0) == [1]
    assert timers.pop_due(now=9.0) == []
    assert timers.next_at() == math.inf


def test_cancelling_what_was_never_set_is_no_matter() -> None:
    timers = Timers()
    timers.cancel(7)

    assert timers.next_at() == math.inf


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "cancel", "pop"]), st.integers(0, 5), st.integers(0, 20)),
        max_size=400,
    )
)
def test_it_agrees_with_a_plain_table(steps: list[tuple[str, int, int]]) -> None:
    timers, table = Timers(), dict[int, float]()
    for what, id_, at in steps:
        if what == "set":
            timers.set(id_, at)
            table[id_] = at
        elif what == "cancel":
            timers.cancel(id_)
            table.pop(id_, None)
        else:
            due = sorted((when, who) for who, when in table.items() if when <= at)
            assert timers.pop_due(now=at) == [who for _, who in due]
            for _, who in due:
                del table[who]
        assert timers.next_at() == min(table.values(), default=math.inf)
        assert len(timers) == len(table)


def test_ten_thousand_cancelled_timers_hold_no_memory() -> None:
    timers = Timers()
    timers.set(0, 1.0)
    for id_ in range(1, 10_001):
        timers.set(id_, 600.0)
        timers.cancel(id_)

    assert len(timers._heap) < 100  # the heap itself: what is held is not to be seen from outside
