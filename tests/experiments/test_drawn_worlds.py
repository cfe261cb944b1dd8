"""bench_worlds: what is drawn can run, depends on its number alone, and reports stay apart."""

import argparse
import sys
from pathlib import Path

import pytest

from penstock.sim.scenario import read_scenario

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)

from bench_worlds import Outcome, Row, arms_of, numbers_of, serve  # noqa: E402
from worlds_cells import cells  # noqa: E402
from worlds_drawn import KINDS, TESTING, draw  # noqa: E402


def test_every_drawn_world_and_every_named_one_is_a_scenario() -> None:
    kinds = set()
    for world in [*map(draw, range(150)), *cells()]:
        for stack in arms_of(world, {}).values():
            read_scenario(world.document(stack, 1))
        kinds.add(world.kind)

    assert kinds >= set(KINDS)


def test_a_world_is_its_number() -> None:
    assert draw(77) == draw(77)
    assert draw(77) != draw(78)


def asked(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"report": False, "seeds": "0:100", **given})


def test_worlds_for_reports_cannot_be_worked_on() -> None:
    assert list(numbers_of(asked(seeds="3:5"))) == [3, 4]
    assert set(numbers_of(asked(report=True))) <= set(TESTING)
    assert list(numbers_of(asked(seeds="20000:20001"))) == [20_000]
    for seeds in ("9990:10001", "15000:15001", "0:30000"):
        with pytest.raises(SystemExit, match="kept for --report"):
            numbers_of(asked(seeds=seeds))


def test_a_row_is_judged_against_its_best_arm() -> None:
    outcomes = {
        "direct": Outcome(0.99, 2.0),
        "told": Outcome(0.99, 1.0),
        "default": Outcome(0.97, 1.2),
        "slow": Outcome(0.99, 1.3),
        "aimd": Outcome(0.80, 0.5),
    }
    row = Row(draw(1), outcomes, 1.0)

    assert row.best == "told"
    assert [row.in_band(arm) for arm in outcomes] == [False, True, True, False, False]
    assert row.regret("aimd") == pytest.approx(19.0)
    assert row.loss_to("aimd", "direct") == pytest.approx(19.0)


def test_the_same_world_has_the_same_outcomes() -> None:
    one, other = (serve(6, names=["default", "direct"], others={}, runs=1) for _ in range(2))

    assert one.outcomes == other.outcomes
    assert set(one.outcomes) == {"default", "direct"}
