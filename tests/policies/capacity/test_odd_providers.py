"""Providers that are slower among more, or slow by chance, or whose replies are hard to foresee.

Each world stands for a run in which the window once stayed far too small.
"""

from statistics import fmean
from typing import Any

import pytest

from penstock.metrics import measure
from penstock.sim.scenario import read_scenario
from penstock.sim.simulate import run_one

HEAVY = {"short": 0.1, "medium": 0.2, "long": 0.4, "xlong": 0.3}
BATCHING = {
    "provider": {"model": "slots", "slots": 16, "tokens_per_s": 120.0, "beta": 0.05},
    "workload": {"rate_per_s": 0.9, "mix": HEAVY, "stream": True},
}
NOISY = {
    "provider": {
        "model": "linear",
        "capacity": 20,
        "base_s": 0.26,
        "s_per_token": 0.0078,
        "gamma": 0.2,
        "jitter": 0.1,
    },
    "workload": {"rate_per_s": 2.9, "mix": HEAVY, "stream": True, "noise": 0.5},
}
HARD_TO_FORESEE = {
    "provider": {"model": "slots", "slots": 45, "tokens_per_s": 63.0, "ttft_s": 0.09},
    "workload": {
        "rate_per_s": 4.2,
        "arrivals": "diurnal",
        "period_s": 48.0,
        "amplitude": 0.8,
        "mix": {"short": 0.09, "medium": 0.5, "long": 0.19, "xlong": 0.22},
        "noise": 0.5,
        "deadline_s": {"short": 1.5, "medium": 5.5, "long": 21.0, "xlong": 85.0},
    },
}
SLOW_IN_SPELLS = {
    "provider": {
        "model": "thrash",
        "capacity": 92,
        "theta": 0.5,
        "tokens_per_s": 104.0,
        "ttft_s": 0.12,
        "jitter": 0.5,
        "spells": {"factor": 0.6, "every_s": 72, "for_s": 12},
    },
    "workload": {
        "requests": 768,
        "rate_per_s": 7.4,
        "arrivals": "gamma",
        "cv": 3.0,
        "mix": {"short": 0.05, "medium": 0.46, "long": 0.13, "xlong": 0.36},
        "deadline_s": {"short": 1.1, "medium": 4.0, "long": 15.0, "xlong": 60.0},
        "stream": 0.5,
        "noise": 0.5,
    },
}
ROOMY = {"short": 3.0, "medium": 12.0, "long": 45.0, "xlong": 180.0}


def in_time(world: dict[str, Any], capacity: dict[str, Any]) -> float:
    """Return the mean deadline satisfaction over four seeds."""
    workload = {"requests": 400, "deadline_s": ROOMY} | world["workload"]
    document = {
        "seeds": [1],
        "provider": world["provider"],
        "workload": workload,
        "policies": {"it": {"capacity": capacity}},
    }
    scenario = read_scenario(document)
    return fmean(
        measure(run_one(scenario, "it", seed).records).deadline_satisfaction for seed in range(1, 5)
    )


@pytest.mark.parametrize(
    ("world", "places"),
    [(BATCHING, 16), (NOISY, 20), (HARD_TO_FORESEE, 45)],
    ids=["slower among more", "slow by chance", "hard to foresee"],
)
def test_an_odd_provider_is_filled_nearly_as_well_as_by_a_window_that_knows(
    world: dict[str, Any], places: int
) -> None:
    known = in_time(world, {"kind": "fixed", "window": places})

    assert in_time(world, {"kind": "posterior"}) >= 0.95 * known


def test_many_places_that_are_slow_in_spells_are_not_taken_for_a_few() -> None:
    known = in_time(SLOW_IN_SPELLS, {"kind": "fixed", "window": 92})

    assert in_time(SLOW_IN_SPELLS, {"kind": "posterior"}) >= 0.85 * known


def test_a_long_request_probes_in_front_of_few_places_only_where_nobody_brief_does() -> None:
    two_places = {
        "provider": {"model": "slots", "slots": 2, "tokens_per_s": 174.0, "ttft_s": 0.28},
        "workload": {
            "rate_per_s": 0.56,
            "mix": {"short": 0.48, "medium": 0.23, "long": 0.07, "xlong": 0.22},
        },
    }

    known = in_time(two_places, {"kind": "fixed", "window": 2})

    assert in_time(two_places, {"kind": "posterior"}) >= 0.97 * known
