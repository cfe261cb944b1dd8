"""P5 and P7: policies part where load is heavy, and the ladder sheds by cost."""

import math
from itertools import pairwise

from penstock.experiments.claims.finding import Claim, Finding, percent
from penstock.experiments.job import Table
from penstock.experiments.results import Cell, Results
from penstock.metrics import BUCKETS
from penstock.sim.engine import Rejection

P5_VARIANTS = ("full", "quota_tiered", "short_priority", "fair_queuing", "drr", "fifo", "direct")
HEAVY = ("heavy/medium", "heavy/high", "storm")
"""The heavy-dominated regimes; `storm` is the heavy mix at twice the capacity (overload.toml)."""
P7_RIVALS = ("uniform_mild", "uniform_harsh", "reverse_ladder")
_OBJECTIVES = (
    ("deadline_satisfaction", 1.0),
    ("useful_goodput_per_s", 1.0),
    ("short_p95_s", -1.0),
)


def examine_p5(results: Results, band: Table) -> Finding:
    """Return how far the policies part in the heavy regimes, and whether sheds are explained."""
    spread, tail = {}, {}
    sheds: list[Rejection] = []
    compared = {"policies": P5_VARIANTS, "overload": ("cost_ladder", *P7_RIVALS)}
    for experiment, regime in [(e, r) for e in compared for r in HEAVY if r in results.regimes(e)]:
        cells = [results.cell(experiment, regime, v) for v in compared[experiment]]
        completion = [cell.mean("completion_rate") for cell in cells]
        tails_s = [cell.mean("p95_s") for cell in cells]
        spread[f"{experiment}: {regime}"] = max(completion) - min(completion)
        tail[f"{experiment}: {regime}"] = max(tails_s) / min(tails_s)
        sheds += [shed for cell in cells for run in cell.runs for shed in run.refusals]
    explained = sum(_is_explained(shed) for shed in sheds) / max(1, len(sheds))
    measured = {
        "completion_spread": max(spread.values()),
        "p95_ratio": max(tail.values()),
        "shed": len(sheds),
        "explained_share": explained,
        "all": {"completion_spread": spread, "p95_ratio": tail},
    }
    holds = (
        measured["completion_spread"] >= band["completion_spread_min"]
        and measured["p95_ratio"] >= band["tail_ratio_min"]
        and bool(sheds)
        and explained >= band["explained_share_min"]
    )
    reading = (
        f"completion differs by {100 * max(spread.values()):.1f} points and P95 by "
        f"{max(tail.values()):.2f}x; {percent(explained)} of {len(sheds)} refusals carry rung, "
        "cost and severity"
    )
    return Finding(measured, holds, reading)


def examine_p7(results: Results, band: Table) -> Finding:
    """Return whom the ladder sheds, and which policies beat it on every objective."""
    regimes = results.regimes("overload")
    cells = {regime: results.cell("overload", regime, "cost_ladder") for regime in regimes}
    short_shed = sum(cell.shed("short") for cell in cells.values())
    dearest_first = all(_dearest_first(cell) for cell in cells.values())
    dominated_in = [
        f"{regime} by {rival}"
        for regime in regimes
        for rival in P7_RIVALS
        if _dominates(results.cell("overload", regime, rival), cells[regime])
    ]
    shed = {r: {b: cells[r].shed(b) for b in BUCKETS} for r in regimes}
    measured = {
        "short_shed": short_shed,
        "dearest_first": dearest_first,
        "dominated": dominated_in,
        "shed": shed,
    }
    holds = short_shed <= band["short_shed_max"] and dearest_first and not dominated_in
    front = "on the Pareto front everywhere" if not dominated_in else f"beaten in {dominated_in}"
    first = "the dearest rung first" if dearest_first else "not the dearest rung first"
    return Finding(measured, holds, f"{short_shed} short requests shed, {first}, {front}")


def _is_explained(shed: Rejection) -> bool:
    return shed.rung in BUCKETS and shed.cost_tokens > 0 and 0 <= shed.severity <= 1


def _dearest_first(cell: Cell) -> bool:
    """Return whether the share shed falls from each rung to the next cheaper one."""
    shares = [cell.shed_share(bucket) for bucket in reversed(BUCKETS)]
    return all(dearer >= cheaper for dearer, cheaper in pairwise(shares))


def _dominates(rival: Cell, ours: Cell) -> bool:
    """Return whether a policy is no worse on every objective and better on one.

    Means that agree to a thousandth are equal: the fourth digit of five seeds says nothing.
    """
    better = False
    for figure, sign in _OBJECTIVES:
        theirs, mine = sign * rival.mean(figure), sign * ours.mean(figure)
        if math.isclose(theirs, mine, rel_tol=1e-3):
            continue
        if not theirs > mine:
            return False
        better = True
    return better


P5 = Claim("P5", {"policies": P5_VARIANTS, "overload": ("cost_ladder", *P7_RIVALS)}, examine_p5)
P7 = Claim("P7", {"overload": ("cost_ladder", *P7_RIVALS)}, examine_p7)
