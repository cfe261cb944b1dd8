"""Arrival generators have the rates and the variability that they promise."""

import math
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from random import Random

import pytest

from penstock.sim import arrivals

COUNT = 20_000
Process = Callable[[Random], Iterator[float]]

PROCESSES: dict[str, Process] = {
    "poisson": lambda chance: arrivals.poisson(4.0, chance),
    "gamma": lambda chance: arrivals.gamma(4.0, 2.5, chance),
    "weibull": lambda chance: arrivals.weibull(4.0, 0.7, chance),
    "bursts": lambda chance: arrivals.bursts(4.0, 5.0, 15.0, chance),
    "diurnal": lambda chance: arrivals.diurnal(4.0, 60.0, 0.8, chance),
}


def gaps(times: list[float]) -> list[float]:
    return [b - a for a, b in pairwise([0.0, *times])]


def cv(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)) / mean


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_times_grow_and_their_mean_rate_is_as_asked(name: str) -> None:
    times = list(islice(PROCESSES[name](Random(11)), COUNT))

    assert all(gap >= 0 for gap in gaps(times))
    assert COUNT / times[-1] == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_the_same_seed_gives_the_same_times_and_a_shorter_run_is_a_prefix(name: str) -> None:
    long = list(islice(PROCESSES[name](Random(5)), 100))
    short = list(islice(PROCESSES[name](Random(5)), 40))
    other = list(islice(PROCESSES[name](Random(6)), 40))

    assert long[:40] == short
    assert other != short


@pytest.mark.parametrize(("wanted", "tolerance"), [(0.5, 0.02), (1.0, 0.05), (2.5, 0.2)])
def test_gamma_gaps_vary_as_much_as_asked(wanted: float, tolerance: float) -> None:
    times = list(islice(arrivals.gamma(4.0, wanted, Random(3)), COUNT))

    assert cv(gaps(times)) == pytest.approx(wanted, abs=tolerance)


def test_poisson_gaps_vary_like_an_exponentials() -> None:
    assert cv(gaps(list(islice(PROCESSES["poisson"](Random(2)), COUNT)))) == pytest.approx(
        1.0, abs=0.03
    )


def test_bursts_leave_the_off_phases_empty() -> None:
    times = list(islice(arrivals.bursts(4.0, 5.0, 15.0, Random(4)), COUNT))

    # At 16/s within a burst, a second without any arrival is an off-phase all but surely.
    silent_s = sum(gap for gap in gaps(times) if gap > 1.0)
    assert silent_s / times[-1] == pytest.approx(0.75, abs=0.06)


def test_the_daily_tide_is_high_in_its_first_half_and_low_in_its_second() -> None:
    times = list(islice(arrivals.diurnal(4.0, 60.0, 0.8, Random(4)), COUNT))

    high = sum(1 for t in times if t % 60.0 < 30.0)
    # The mean of 1 + 0.8 sin over the first half is 1 + 0.8 x 2/pi.
    assert high / COUNT == pytest.approx((1 + 0.8 * 2 / math.pi) / 2, abs=0.02)
