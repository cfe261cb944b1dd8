"""Service time is the lower envelope of what replies took, as a line over their length."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.signals import ServiceTime

LENGTHS = (20, 60, 200, 600, 2000)


def true_s(tokens: float) -> float:
    return 0.3 + 0.01 * tokens


def taught(seed: int, replies: int, waiting_share: float, jitter: float = 0.0) -> ServiceTime:
    dice, fit = random.Random(seed), ServiceTime()
    for _ in range(replies):
        tokens = dice.choice(LENGTHS)
        waited_s = dice.expovariate(0.5) if dice.random() < waiting_share else 0.0
        fit.observe(tokens, true_s(tokens) * dice.lognormvariate(0.0, jitter) + waited_s)
    return fit


@pytest.mark.parametrize("tokens", [30, 300, 1500])
def test_the_line_is_found_among_replies_of_which_most_waited(tokens: int) -> None:
    fit = taught(1, 200, waiting_share=0.8)

    assert fit.predict_s(tokens) == pytest.approx(true_s(tokens), rel=0.05)


def test_jitter_moves_the_envelope_a_little() -> None:
    fit = taught(2, 400, waiting_share=0.3, jitter=0.05)

    assert fit.predict_s(300) == pytest.approx(true_s(300), rel=0.15)


def test_one_reply_scales_the_first_guess() -> None:
    fit = ServiceTime(base_s=0.2, s_per_token=0.005)
    fit.observe(100, 1.4)

    assert fit.predict_s(100) == pytest.approx(1.4)
    assert fit.base_s == pytest.approx(0.4)


def test_a_faster_provider_is_believed_at_once() -> None:
    fit = taught(3, 100, waiting_share=0.0)
    for tokens in LENGTHS:
        fit.observe(tokens, true_s(tokens) / 2)

    assert fit.predict_s(300) == pytest.approx(true_s(300) / 2, rel=0.01)


def test_a_slower_provider_is_believed_when_the_fast_replies_are_old() -> None:
    fit = taught(4, 100, waiting_share=0.0)
    for _ in range(2 * fit.keep + 1):
        for tokens in LENGTHS:
            fit.observe(tokens, true_s(tokens) * 2)

    assert fit.predict_s(300) == pytest.approx(true_s(300) * 2, rel=0.01)


def test_one_freak_reply_moves_nothing_if_it_is_slow() -> None:
    fit = taught(5, 100, waiting_share=0.0)
    before = fit.predict_s(300)
    fit.observe(250, 500.0)

    assert fit.predict_s(300) == pytest.approx(before, rel=0.05)


def test_a_line_through_short_replies_says_nothing_of_far_longer_ones() -> None:
    fit = ServiceTime()
    for tokens in (24, 24, 18):  # equally fast: as if length cost nothing
        fit.observe(tokens, 0.22)

    assert fit.knows(90)
    assert not fit.knows(100)

    fit.observe(80, 0.39)
    assert fit.knows(300)
    assert fit.predict_s(300) == pytest.approx(0.15 + 0.003 * 300, rel=0.1)


def test_two_replies_are_not_enough_to_know_anything() -> None:
    fit = ServiceTime()
    fit.observe(100, 0.7)
    fit.observe(200, 1.2)

    assert not fit.knows(100)

    fit.observe(300, 1.7)
    assert fit.knows(100)


def test_what_no_clock_resolves_and_empty_replies_teach_nothing() -> None:
    fit = ServiceTime()
    fit.observe(100, 0.0)
    fit.observe(0, 1.0)
    fit.first.observe(-1, 1.0)

    assert (fit.replies, fit.first.replies) == (0, 0)
    assert fit.predict_s(100) == pytest.approx(0.7)


@given(
    st.lists(st.tuples(st.integers(1, 100_000), st.floats(1e-9, 1e5, allow_nan=False)), max_size=80)
)
def test_predictions_are_never_negative_and_never_fall_with_length(
    replies: list[tuple[int, float]],
) -> None:
    fit = ServiceTime()
    for tokens, latency_s in replies:
        fit.observe(tokens, latency_s)

    assert 0.0 <= fit.predict_s(1) <= fit.predict_s(100) <= fit.predict_s(10_000)
