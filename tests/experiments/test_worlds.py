from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.experiments.paper import paper_directory, read_paper
from penstock.experiments.study import Draws, perturbed, seeds_of, world_of
from tests.experiments.specimens import base

SETTINGS = read_paper(paper_directory()).special["worlds"]


def numbers(value: Any, path: str = "") -> dict[str, float]:
    if isinstance(value, dict):
        inner = [numbers(each, f"{path}/{name}") for name, each in value.items()]
        return {name: number for part in inner for name, number in part.items()}
    return {path: value} if isinstance(value, int | float) else {}


@given(st.integers(1, 10_000))
def test_every_constant_of_a_world_is_within_a_quarter_of_its_value(world: int) -> None:
    before = numbers({k: base()[k] for k in ("provider", "workload", "regimes")})
    there = world_of(base(), world, SETTINGS)
    after = numbers({k: there[k] for k in ("provider", "workload", "regimes")})

    assert before.keys() == after.keys()
    for name, value in before.items():
        slack = 0.5 if isinstance(value, int) else 1e-9
        assert abs(after[name] - value) <= 0.25 * value + slack, name


@given(st.integers(1, 10_000))
def test_a_mix_keeps_its_drawn_proportions_and_sums_to_one(world: int) -> None:
    there = world_of(base(), world, SETTINGS)["mixes"]

    for name, mix in base()["mixes"].items():
        moved = [there[name][bucket] / share for bucket, share in mix.items()]
        assert sum(there[name].values()) == pytest.approx(1.0)
        assert max(moved) / min(moved) <= 1.25 / 0.75 + 1e-9


def test_no_two_constants_move_together() -> None:
    there = world_of(base(), 7, SETTINGS)
    factors = {
        there["provider"][name] / value
        for name, value in base()["provider"].items()
        if isinstance(value, float)
    }

    assert len(factors) == 4


def test_a_world_is_the_same_whenever_it_is_drawn_and_no_other() -> None:
    assert world_of(base(), 3, SETTINGS) == world_of(base(), 3, SETTINGS)
    assert world_of(base(), 3, SETTINGS) != world_of(base(), 4, SETTINGS)


def test_what_experiments_vary_themselves_and_words_stay() -> None:
    moved = perturbed(
        {"noise": 0.6, "arrivals": "poisson", "rate_per_s": 4.0}, Draws(1, 0.25), fixed=("noise",)
    )

    assert moved["noise"] == 0.6
    assert moved["arrivals"] == "poisson"
    assert moved["rate_per_s"] != 4.0


def test_whole_numbers_stay_whole_and_positive() -> None:
    moved = [perturbed(1, Draws(world, 0.9), fixed=()) for world in range(1, 50)]

    assert all(isinstance(value, int) and value >= 1 for value in moved)


def test_worlds_do_not_share_seeds() -> None:
    seen = [seed for world in range(1, 200) for seed in seeds_of(world, 2)]

    assert len(set(seen)) == len(seen)
