"""A dip looks at half the window once, where all replies so far were crowded."""

import pytest

from penstock.core.dip import AFTER_REPLIES, DIP_REPLIES, Dip


def crowded(dip: Dip, *, n: float, limit: float, may_open: bool = True) -> None:
    for _ in range(AFTER_REPLIES):
        assert dip.replied(n, limit, 1.0, may_open=may_open) is None


def test_it_opens_when_nobody_has_flown_among_few() -> None:
    dip = Dip()
    crowded(dip, n=14.0, limit=16.0)

    assert dip.open


def test_one_reply_from_half_the_window_is_enough_to_know() -> None:
    dip = Dip()
    dip.replied(8.0, 16.0, 1.0, may_open=True)
    crowded(dip, n=14.0, limit=16.0)

    assert not dip.open


@pytest.mark.parametrize(("n", "limit", "may_open"), [(6.0, 8.0, True), (14.0, 16.0, False)])
def test_a_small_window_and_a_provider_that_queues_get_none(
    n: float, limit: float, may_open: bool
) -> None:
    dip = Dip()
    crowded(dip, n=n, limit=limit, may_open=may_open)

    assert not dip.open


def test_replies_that_are_no_faster_among_half_as_many_end_it_for_good() -> None:
    dip = Dip()
    crowded(dip, n=14.0, limit=16.0)
    for _ in range(DIP_REPLIES):
        assert dip.replied(8.0, 16.0, 0.95, may_open=True) is None
    assert not dip.open

    crowded(dip, n=16.0, limit=16.0)
    assert not dip.open


def test_replies_sent_before_it_tell_nothing() -> None:
    dip = Dip()
    crowded(dip, n=14.0, limit=16.0)
    crowded(dip, n=12.0, limit=16.0)

    assert dip.open


def test_what_it_gained_is_told_and_the_half_is_looked_at_in_turn() -> None:
    dip = Dip()
    crowded(dip, n=14.0, limit=16.0)
    gains = [dip.replied(8.0, 16.0, ratio, may_open=True) for ratio in (0.5, 0.9, 0.6)]

    assert gains == [None, None, 0.6]
    assert not dip.open

    crowded(dip, n=7.0, limit=8.0)
    assert dip.open
