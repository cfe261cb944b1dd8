from pathlib import Path
from typing import Any

import pytest

from penstock.experiments.paper import paper_directory, read_paper
from penstock.experiments.regret import (
    CellRegret,
    Scored,
    Stacks,
    near_best,
    search_cells,
    stack_name,
)
from penstock.sim.scenario import read_scenario
from tests.experiments.specimens import Counting, bench, small_paper

LIMITS = read_paper(paper_directory()).special["regret"]
STACKS = Stacks(LIMITS["search"])
SOME = [{"allocation": "drr", "ordering": "edf", "overload": "always_admit"}]


def scored(deadlines: float, p95_s: float, name: str = "a") -> Scored:
    return Scored(name, {}, deadlines, p95_s)


def regret(ours: Scored, best: Scored, fastest: Scored) -> CellRegret:
    return CellRegret("balanced/high", "slots", ours, ours, best, fastest, 200)


def test_the_search_spans_every_combination_of_the_three_upper_layers() -> None:
    names = {stack_name(policy) for policy in STACKS.combinations()}

    assert len(names) == 6 * 4 * 5


@pytest.mark.parametrize("propose", [Stacks.windows, Stacks.parameters])
def test_every_stack_that_may_be_tried_can_be_built(propose: Any) -> None:
    every = [
        {"allocation": a, "ordering": o, "overload": v}
        for a in LIMITS["search"]["allocations"]
        for o, v in (("feasible_set", "cost_ladder"), ("edf", "always_admit"))
    ]
    proposed = propose(STACKS, every)

    assert len({stack_name(policy) for policy in proposed}) == len(proposed)
    every = [*proposed, LIMITS["direct"], *LIMITS["references"]]
    policies = {f"stack {number}": policy for number, policy in enumerate(every)}
    scenario = {
        "provider": {"model": "slots"},
        "workload": {"rate_per_s": 1.0, "requests": 1},
        "policies": policies,
    }

    assert len(read_scenario(scenario).policies) == len(every)


def test_names_tell_stacks_apart_and_hide_what_never_binds() -> None:
    windows = [stack_name(policy) for policy in STACKS.windows(SOME)]

    assert windows[0] == "drr / edf / always_admit / fixed (window 1)"
    assert windows[-1].startswith("drr / edf / always_admit / fixed (window_tokens ")
    assert stack_name({}) == "default"


def test_the_fastest_is_sought_only_among_those_that_meet_deadlines() -> None:
    ranked = [scored(0.95, 0.6), scored(0.93, 0.5), scored(0.60, 0.1)]

    assert near_best(ranked) == ranked[:2]


def test_a_cell_is_within_the_band_by_both_measures_or_not_at_all() -> None:
    best, fastest = scored(0.95, 0.6), scored(0.93, 0.4)

    assert regret(scored(0.921, 0.49), best, fastest).holds(LIMITS)
    assert not regret(scored(0.919, 0.49), best, fastest).holds(LIMITS)
    assert not regret(scored(0.921, 0.51), best, fastest).holds(LIMITS)


def test_being_better_than_the_best_found_is_no_regret() -> None:
    assert regret(scored(0.99, 0.3), scored(0.95, 0.6), scored(0.93, 0.4)).deadline_regret == 0.0


@pytest.mark.slow
def test_a_search_tries_a_hundred_stacks_and_finds_none_worse_than_it_screened(
    tmp_path: Path,
) -> None:
    folder = small_paper(tmp_path)
    text = (folder / "regret.toml").read_text("utf-8")
    head, _, cells = text.partition("[cells.linear]")
    slots = "[cells.slots]" + cells.partition("[cells.slots]")[2].partition("[cells.shared]")[0]
    one = slots.replace('"balanced/medium" = 3.0, ', "").replace('"heavy/medium" = 1.6, ', "")
    (folder / "regret.toml").write_text(head + one, "utf-8")
    workers = Counting()

    found = search_cells(read_paper(folder), 2, bench(tmp_path / "out", workers))

    assert [(r.provider, r.regime) for r in found] == [
        ("slots", "balanced/high"),
        ("slots", "heavy/high"),
    ]
    for cell in found:
        assert cell.tried >= 100
        assert cell.best.deadline_satisfaction >= cell.ours.deadline_satisfaction
        assert cell.best.deadline_satisfaction >= cell.direct.deadline_satisfaction
        assert cell.fastest.deadline_satisfaction >= cell.best.deadline_satisfaction - 0.03
        assert cell.ours.policy == {}
