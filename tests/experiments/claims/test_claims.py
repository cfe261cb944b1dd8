from collections.abc import Mapping
from typing import Any

import pytest

from penstock.experiments.claims import CLAIMS, Finding, examinable, verdicts
from penstock.experiments.paper import Experiment, Regime, Variant, paper_directory, read_paper
from penstock.experiments.results import Cell, Results
from penstock.sim.engine import Rejection
from tests.experiments.specimens import cell

PUBLISHED = read_paper(paper_directory()).published
REGIMES = ("balanced/medium", "balanced/high", "heavy/medium", "heavy/high")
EXPLAINED = Rejection(
    1, at=3.0, bucket="xlong", reason="shed", rung="xlong", cost_tokens=2048, severity=0.8
)


def results(experiment: str, cells: Mapping[tuple[str, str], Cell]) -> Results:
    """One experiment's results; its regimes and variants are those of the cells."""
    regimes = tuple(Regime(name, {}) for name in dict.fromkeys(r for r, _ in cells))
    variants = tuple(Variant(v, v, {}, {}) for v in dict.fromkeys(v for _, v in cells))
    grid = Experiment(experiment, experiment, "", regimes, variants)
    return Results({experiment: grid}, {(experiment, *place): c for place, c in cells.items()})


def everywhere(**variants: Cell) -> dict[tuple[str, str], Cell]:
    return {(regime, name): c for regime in REGIMES for name, c in variants.items()}


def finding(claim: str, found: Results) -> Finding:
    (one,) = [c for c in CLAIMS if c.id == claim]
    return one.examine(found, PUBLISHED[claim]["band"])


def p1(**figures: Any) -> Results:
    good = {"deadlines": 1.0, "completion": 1.0, "goodput": 4.3, "short_p95_s": 0.35}
    return results("policies", {("balanced/high", "full"): cell(**(good | figures))})


def test_p1_holds_at_the_published_figures() -> None:
    assert finding("P1", p1()).holds


@pytest.mark.parametrize(
    "worse",
    [
        {"deadlines": 0.99},
        {"completion": 0.99},
        {"goodput": 2.5},
        {"goodput": 5.9},
        {"short_p95_s": 0.41},
        {"short_p95_s": 0.29},
    ],
)
def test_p1_breaks_when_any_figure_leaves_its_band(worse: dict[str, float]) -> None:
    assert not finding("P1", p1(**worse)).holds


def test_p2_looks_at_the_regime_in_which_we_are_slowest() -> None:
    cells = everywhere(full=cell(short_p95_s=0.35), quota_tiered=cell(short_p95_s=0.34))
    assert finding("P2", results("policies", cells)).holds

    cells[("heavy/high", "full")] = cell(short_p95_s=0.41)
    found = finding("P2", results("policies", cells))
    assert not found.holds
    assert found.measured["regime"] == "heavy/high"
    assert found.measured["short_p95_difference_s"] == pytest.approx(0.07)


def test_p3_asks_for_inflation_somewhere_and_coarse_near_oracle_everywhere() -> None:
    cells = everywhere(
        none=cell(short_p95_s=0.5, deadlines=0.9),
        coarse=cell(short_p95_s=0.4, deadlines=0.96),
        oracle=cell(short_p95_s=0.4, deadlines=0.97),
    )
    assert not finding("P3", results("information", cells)).holds

    cells[("heavy/high", "none")] = cell(short_p95_s=2.0, deadlines=0.8)
    found = finding("P3", results("information", cells))
    assert found.holds
    assert found.measured["short_p95_inflation"] == pytest.approx(5.0)

    cells[("balanced/medium", "coarse")] = cell(short_p95_s=0.4, deadlines=0.9)
    assert not finding("P3", results("information", cells)).holds


def test_p4_breaks_by_lost_deadlines_or_by_grown_latency() -> None:
    clean, noisy = cell(deadlines=0.98, short_p95_s=0.40), cell(deadlines=0.94, short_p95_s=0.49)
    cells = everywhere(noise_00=clean, noise_60=noisy)
    assert finding("P4", results("noise", cells)).holds

    for worse in (
        cell(deadlines=0.92, short_p95_s=0.40),
        cell(deadlines=0.98, short_p95_s=0.51),
    ):
        broken = cells | {("heavy/medium", "noise_60"): worse}
        assert not finding("P4", results("noise", broken)).holds


def p5(refusals: tuple[Rejection, ...]) -> Results:
    variants = ("quota_tiered", "short_priority", "fair_queuing", "drr", "fifo", "direct")
    cells = everywhere(**{name: cell(p95_s=9.0) for name in variants})
    full = cell(completion=0.95, p95_s=5.0, refusals=refusals)
    policies = results("policies", cells | {(regime, "full"): full for regime in REGIMES})
    ladders = ("cost_ladder", "uniform_mild", "uniform_harsh", "reverse_ladder")
    overload = results("overload", {("storm", name): cell(p95_s=9.0) for name in ladders})
    return Results(
        {**policies.experiments, **overload.experiments}, {**policies.cells, **overload.cells}
    )


def test_p5_holds_when_policies_part_and_every_refusal_is_explained() -> None:
    assert finding("P5", p5((EXPLAINED,))).holds


def test_p5_breaks_without_refusals_or_with_one_that_is_not_explained() -> None:
    unexplained = Rejection(
        1, at=3.0, bucket="xlong", reason="shed", rung="", cost_tokens=2048, severity=0.8
    )

    assert not finding("P5", p5(())).holds
    assert not finding("P5", p5((EXPLAINED, unexplained))).holds


def p6(fair: tuple[float, float], priority: tuple[float, float]) -> Results:
    """Short P90 and long P90 of both; FIFO has 1 s and 10 s."""
    return results(
        "allocation",
        {
            ("comparison", "fifo"): cell(short_p90_s=1.0, long_p90_s=10.0),
            ("comparison", "fair_queuing"): cell(short_p90_s=fair[0], long_p90_s=fair[1]),
            ("comparison", "short_priority"): cell(short_p90_s=priority[0], long_p90_s=priority[1]),
        },
    )


def test_p6_holds_at_the_published_figures() -> None:
    found = finding("P6", p6((0.68, 11.7), (0.73, 21.6)))

    assert found.holds
    assert found.measured["fair_queuing_short_p90_gain"] == pytest.approx(0.32)
    assert found.measured["short_priority_long_overhead"] == pytest.approx(1.16)


@pytest.mark.parametrize(
    ("fair", "priority"),
    [
        ((0.85, 11.0), (0.7, 20.0)),  # too little gained
        ((0.50, 11.0), (0.5, 20.0)),  # too much
        ((0.70, 13.5), (0.7, 30.0)),  # long requests pay too much
        ((0.70, 11.0), (0.7, 12.0)),  # priority costs them no more than turns
        ((0.70, 10.0), (0.7, 10.0)),  # three times nothing
    ],
)
def test_p6_breaks_outside_each_of_its_bands(
    fair: tuple[float, float], priority: tuple[float, float]
) -> None:
    assert not finding("P6", p6(fair, priority)).holds


def p7(ladder: Cell, rival: Cell) -> Results:
    worst = cell(deadlines=0.1, goodput=0.1, short_p95_s=9.0)
    return results(
        "overload",
        everywhere(
            cost_ladder=ladder, uniform_mild=worst, uniform_harsh=rival, reverse_ladder=worst
        ),
    )


GRADED = {"xlong": 60, "long": 20}


def test_p7_holds_for_a_ladder_that_sheds_the_dearest_first_and_is_not_beaten() -> None:
    rival = cell(deadlines=0.95, goodput=3.0, short_p95_s=0.2)

    assert finding("P7", p7(cell(deadlines=0.9, shed=GRADED), rival)).holds


@pytest.mark.parametrize(
    ("ladder", "rival"),
    [
        (cell(shed={"short": 1, **GRADED}), cell(deadlines=0.5)),
        (cell(shed={"xlong": 20, "long": 60}), cell(deadlines=0.5)),
        (cell(deadlines=0.90, shed=GRADED), cell(deadlines=0.95, goodput=4.5, short_p95_s=0.2)),
    ],
    ids=["a short request was shed", "the dearer rung was spared", "another is better in all"],
)
def test_p7_breaks_when_the_ladder_forgets_its_objective(ladder: Cell, rival: Cell) -> None:
    assert not finding("P7", p7(ladder, rival)).holds


def test_a_tie_is_no_defeat() -> None:
    same = cell(shed=GRADED)

    assert finding("P7", p7(same, same)).holds


def test_only_claims_whose_experiments_were_run_are_examined() -> None:
    found = results("noise", everywhere(noise_00=cell(), noise_60=cell()))

    assert [claim.id for claim in examinable(found)] == ["P4"]


def test_a_verdict_counts_the_worlds_in_which_the_claim_holds() -> None:
    (verdict,) = verdicts(
        results("noise", everywhere(noise_00=cell(), noise_60=cell())),
        PUBLISHED,
        [
            results("noise", everywhere(noise_00=cell(), noise_60=worse))
            for worse in (cell(), cell(), cell(), cell(deadlines=0.5))
        ],
    )

    assert verdict.to_json() == {
        "claim": "P4",
        "published": {"noise": 0.6, "degradation": "graceful"},
        "measured": verdict.finding.measured,
        "band": {"deadline_satisfaction_loss_max": 0.05, "short_p95_growth_max": 1.25},
        "holds": True,
        "worlds_share": 0.75,
    }
