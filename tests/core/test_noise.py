"""A provider's own noise is told apart from waiting."""

import math
import random

import pytest

from penstock.core.noise import Noise


def quiet(deviation: float, *, slower_by_one: float = 0.0) -> Noise:
    """Return the noise of replies that had no reason to wait, around 1.2 times the line."""
    noise, chance = Noise(), random.Random(0)
    for _ in range(300):
        n = float(chance.randrange(1, 9))
        jitter = chance.lognormvariate(0.0, deviation)
        noise.observe(1.2 * jitter * (1.0 + slower_by_one * n), n)
    return noise


@pytest.mark.parametrize("deviation", [0.0, 0.05, 0.1])
def test_tolerance_is_four_deviations_of_the_providers_own_noise(deviation: float) -> None:
    noise = quiet(deviation)

    assert noise.typical == pytest.approx(1.2, rel=0.1)
    assert noise.deviation == pytest.approx(deviation, abs=0.02 + 0.3 * deviation)
    assert noise.tolerance == pytest.approx(1.2 * math.exp(4.0 * deviation) - 0.97, abs=0.2)


def test_tolerance_has_bounds() -> None:
    assert quiet(3.0).tolerance == 1.5
    calm = Noise()
    for _ in range(300):
        calm.observe(0.9, 1.0)
    assert calm.tolerance == pytest.approx(0.03, abs=0.02)


def test_being_slower_among_more_is_no_noise() -> None:
    assert quiet(0.02, slower_by_one=0.1).deviation < 0.08


def test_a_few_that_waited_after_all_are_no_noise() -> None:
    noise = Noise()
    for number in range(48):
        noise.observe(5.0 if number % 3 == 0 else 1.0, 4.0)

    assert noise.typical == 1.0
    assert noise.tolerance == pytest.approx(0.05, abs=0.03)


def test_it_is_known_once_enough_has_been_seen_and_forgotten_with_the_line() -> None:
    noise = Noise()
    assert not noise.is_rather_known

    for _ in range(24):
        noise.observe(1.1, 2.0)
    assert noise.is_rather_known
    assert noise.is_known

    noise.restart(crowded=True)
    assert not noise.is_rather_known
    assert noise.tolerance == Noise().tolerance
