"""Everything at once, to a provider that nobody knows yet: what the window makes of it."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import pytest

from penstock.metrics import measure
from penstock.sim.scenario import read_scenario
from penstock.sim.simulate import run_one

SEEDS = (1, 2, 3)
DEADLINE_S = {"short": 1.0, "medium": 4.0, "long": 15.0, "xlong": 60.0}
BALANCED = {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1}
HEAVY = {"short": 0.2, "medium": 0.2, "long": 0.3, "xlong": 0.3}
DIRECT = {
    "allocation": "fifo",
    "ordering": "fifo",
    "overload": "always_admit",
    "capacity": {"kind": "unlimited"},
}


def at_once(
    calls: int,
    model: str,
    places: int,
    policy: Mapping[str, Any],
    *,
    mix: Mapping[str, float],
    deadline_s: Mapping[str, float],
    seed: int,
) -> tuple[float, float]:
    """Return deadline satisfaction and makespan in seconds."""
    places_key = "slots" if model == "slots" else "capacity"
    scenario = read_scenario(
        {
            "seeds": [seed],
            "provider": {"model": model, places_key: places},
            "workload": {
                "requests": calls,
                "rate_per_s": 100_000.0,
                "mix": dict(mix),
                "deadline_s": dict(deadline_s),
            },
            "policies": {"it": dict(policy)},
        }
    )
    metrics = measure(run_one(scenario, "it", seed).records)
    assert metrics.makespan_s is not None
    return metrics.deadline_satisfaction, metrics.makespan_s


def known(places: int) -> dict[str, Any]:
    return {"capacity": {"kind": "fixed", "window": places}}


@pytest.mark.parametrize("places", [4, 8, 32])
@pytest.mark.parametrize("model", ["slots", "shared", "thrash"])
def test_a_batch_is_done_about_as_fast_as_by_a_window_that_knows(model: str, places: int) -> None:
    def makespan_s(policy: Mapping[str, Any]) -> float:
        patient = {"medium": 36_000.0}
        return fmean(
            at_once(400, model, places, policy, mix={"medium": 1.0}, deadline_s=patient, seed=seed)[
                1
            ]
            for seed in SEEDS
        )

    ours = makespan_s({})

    assert ours < 1.25 * makespan_s(known(places))
    if model == "thrash":
        assert ours < 0.5 * makespan_s(DIRECT)


def test_a_mixed_crowd_at_a_queue_is_served_no_worse_than_by_sending_it_all() -> None:
    def served(policy: Mapping[str, Any]) -> tuple[float, float]:
        runs = [
            at_once(120, "slots", 8, policy, mix=BALANCED, deadline_s=DEADLINE_S, seed=seed)
            for seed in SEEDS
        ]
        return fmean(in_time for in_time, _ in runs), fmean(makespan_s for _, makespan_s in runs)

    in_time, makespan_s = served({})
    direct_in_time, _ = served(DIRECT)
    _, known_makespan_s = served(known(8))

    assert in_time > direct_in_time
    assert makespan_s < 1.1 * known_makespan_s


@pytest.mark.parametrize(("mix", "seed"), [(BALANCED, 2), (HEAVY, 1)])
def test_a_window_that_is_too_small_grows_even_where_all_are_late_and_long(
    mix: Mapping[str, float], seed: int
) -> None:
    def makespan_s(policy: Mapping[str, Any]) -> float:
        return at_once(400, "shared", 4, policy, mix=mix, deadline_s=DEADLINE_S, seed=seed)[1]

    assert makespan_s({}) < 1.3 * makespan_s(known(4))
