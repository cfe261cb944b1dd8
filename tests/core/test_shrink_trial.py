"""A smaller window is a trial: were replies late for waiting, or by chance?"""

import pytest

from penstock.core.shrink_trial import REPLIES, ShrinkTrial


def after_shrinking(before: float, *, window: float = 12.0, excess: float = 0.5) -> ShrinkTrial:
    trial = ShrinkTrial()
    for _ in range(REPLIES):
        assert trial.replied(window, window, before, sent_at=0.0) is None
    trial.shrunk(window, excess, now=1.0)
    return trial


def sent_into(trial: ShrinkTrial, limit: float, ratio: float) -> object:
    return [trial.replied(limit, limit, ratio, sent_at=2.0) for _ in range(REPLIES)][-1]


def test_replies_no_faster_among_fewer_tell_the_noise() -> None:
    trial = after_shrinking(1.3)

    assert sent_into(trial, 6.0, 1.25) == [(6.0, 1.25)] * REPLIES
    assert (trial.window, trial.excess) == (12.0, 0.5)


@pytest.mark.parametrize(("before", "after"), [(2.0, 1.0), (3.0, 1.0), (1.5, 1.05)])
def test_replies_faster_among_fewer_had_waited(before: float, after: float) -> None:
    trial = after_shrinking(before)

    assert sent_into(trial, 6.0, after) is None
    assert not trial.is_open


def test_one_fewer_of_twelve_tells_nothing() -> None:
    assert sent_into(after_shrinking(1.3), 11.0, 1.3) is None


def test_replies_sent_before_or_among_more_do_not_count() -> None:
    trial = after_shrinking(1.3)
    for _ in range(REPLIES):
        assert trial.replied(6.0, 6.0, 1.3, sent_at=0.5) is None
        assert trial.replied(9.0, 6.0, 1.3, sent_at=2.0) is None

    assert sent_into(trial, 6.0, 1.3) is not None


def test_the_latest_of_all_that_made_it_shrink_counts() -> None:
    trial = after_shrinking(1.3, excess=0.5)
    trial.shrunk(9.0, 1.75, now=1.5)

    assert (trial.window, trial.excess) == (12.0, 1.75)
    trial.end()
    assert sent_into(trial, 6.0, 1.3) is None
