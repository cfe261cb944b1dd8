"""All claims over one study, and the share of perturbed worlds in which each holds.

P1, P2: what the full stack reaches, and how near it comes to quota-tiered isolation. P3, P4: what
knowing the magnitude is worth, and how wrong it may be. P5, P7: policies part where load is heavy,
and the ladder sheds by cost. P6: what round robin and strict priority gain, and who pays.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from penstock.experiments.measure import Table
from penstock.experiments.results import Cell, Results
from penstock.metrics import BUCKETS
from penstock.sim.engine import Rejection


@dataclass(frozen=True, slots=True)
class Finding:
    """Our figures for a claim, and whether they lie in its band.

    Attributes:
        measured: figures by name.
        holds: True if all of the band's conditions are met.
        reading: the same in words, for the report.

    """

    measured: Mapping[str, Any]
    holds: bool
    reading: str


@dataclass(frozen=True, slots=True)
class Claim:
    """How a claim is examined.

    Attributes:
        needs: the variants that it looks at, by experiment.
        examine: from the runs and the band to the finding.

    """

    id: str
    needs: Mapping[str, tuple[str, ...]]
    examine: Callable[[Results, Table], Finding]


def percent(share: float) -> str:
    """Return a share as text, in per cent."""
    return f"{100 * share:.1f} %"


def millis(seconds: float) -> str:
    """Return a time in milliseconds."""
    return f"{1000 * seconds:.0f} ms"


P1_REGIME = "balanced/high"


def examine_p1(results: Results, band: Table) -> Finding:
    """Return the full stack's figures in the published regime."""
    cell = results.cell("policies", P1_REGIME, "full")
    names = (
        "completion_rate",
        "deadline_satisfaction",
        "useful_goodput_per_s",
        "short_p95_s",
    )
    measured = {name: cell.mean(name) for name in names}
    goodput_low, goodput_high = band["useful_goodput_per_s"]
    p95_low_s, p95_high_s = band["short_p95_s"]
    holds = (
        measured["completion_rate"] >= band["completion_rate_min"]
        and measured["deadline_satisfaction"] >= band["deadline_satisfaction_min"]
        and goodput_low <= measured["useful_goodput_per_s"] <= goodput_high
        and p95_low_s <= measured["short_p95_s"] <= p95_high_s
    )
    reading = (
        f"completion {percent(measured['completion_rate'])}, deadlines "
        f"{percent(measured['deadline_satisfaction'])}, goodput "
        f"{measured['useful_goodput_per_s']:.2f} req/s, short P95 {millis(measured['short_p95_s'])}"
    )
    return Finding(measured, holds, reading)


def examine_p2(results: Results, band: Table) -> Finding:
    """Return how much later our short P95 is than quota-tiered's, at worst over the regimes."""
    by_regime = {
        regime: results.cell("policies", regime, "full").mean("short_p95_s")
        - results.cell("policies", regime, "quota_tiered").mean("short_p95_s")
        for regime in results.regimes("policies")
    }
    # "Within tens of ms" counts both ways only where we are slower: being faster breaks nothing.
    worst = max(by_regime, key=lambda regime: by_regime[regime])
    measured = {"short_p95_difference_s": by_regime[worst], "regime": worst, "all": by_regime}
    holds = by_regime[worst] <= band["short_p95_difference_s_max"]
    reading = f"at most {by_regime[worst] * 1000:+.0f} ms (in {worst}) against quota-tiered"
    return Finding(measured, holds, reading)


def examine_p3(results: Results, band: Table) -> Finding:
    """Return how much short P95 grows when magnitude is taken away, and coarse against oracle."""
    inflation, share, loss = {}, {}, {}
    for regime in results.regimes("information"):
        cells = {v: results.cell("information", regime, v) for v in ("none", "coarse", "oracle")}
        inflation[regime] = cells["none"].mean("short_p95_s") / cells["coarse"].mean("short_p95_s")
        satisfied = {v: cell.mean("deadline_satisfaction") for v, cell in cells.items()}
        share[regime] = satisfied["coarse"] / max(satisfied["oracle"], 1e-9)
        loss[regime] = satisfied["coarse"] - satisfied["none"]
    worst = max(inflation, key=lambda regime: inflation[regime])
    nearest = min(share, key=lambda regime: share[regime])
    measured = {
        "short_p95_inflation": inflation[worst],
        "regime": worst,
        "deadline_satisfaction_loss": loss[worst],
        "coarse_share_of_oracle": share[nearest],
        "all": {"inflation": inflation, "coarse_share_of_oracle": share},
    }
    holds = (
        inflation[worst] >= band["short_p95_inflation_min"]
        and share[nearest] >= band["coarse_share_of_oracle_min"]
        and loss[worst] > 0
    )
    reading = (
        f"{inflation[worst]:.1f}x in {worst}, with {100 * loss[worst]:.1f} points of deadline "
        f"satisfaction; coarse reaches at least {percent(share[nearest])} of oracle's"
    )
    return Finding(measured, holds, reading)


def examine_p4(results: Results, band: Table) -> Finding:
    """Return what 60 % of noise costs at worst."""
    loss, growth = {}, {}
    for regime in results.regimes("noise"):
        clean = results.cell("noise", regime, "noise_00")
        noisy = results.cell("noise", regime, "noise_60")
        loss[regime] = clean.mean("deadline_satisfaction") - noisy.mean("deadline_satisfaction")
        growth[regime] = noisy.mean("short_p95_s") / clean.mean("short_p95_s")
    most, largest = max(loss.values()), max(growth.values())
    measured = {
        "deadline_satisfaction_loss": most,
        "short_p95_growth": largest,
        "all": {"loss": loss, "growth": growth},
    }
    holds = (
        most <= band["deadline_satisfaction_loss_max"] and largest <= band["short_p95_growth_max"]
    )
    reading = f"at worst {100 * most:.1f} points of deadline satisfaction and {largest:.2f}x"
    return Finding(measured, holds, reading)


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


P6_REGIME = "comparison"


def examine_p6(results: Results, band: Table) -> Finding:
    """Return gains in short P90 and overheads in long P90, both against FIFO."""
    regime = P6_REGIME
    cells = {v: results.cell("allocation", regime, v) for v in results.variants("allocation")}
    short_s = {v: cell.mean("short_p90_s") for v, cell in cells.items()}
    long_s = {v: cell.mean("long_p90_s") for v, cell in cells.items()}
    gain = {v: 1 - short_s[v] / short_s["fifo"] for v in ("fair_queuing", "short_priority")}
    overhead = {v: long_s[v] / long_s["fifo"] - 1 for v in ("fair_queuing", "short_priority")}
    measured = {
        "regime": regime,
        "fair_queuing_short_p90_gain": gain["fair_queuing"],
        "fair_queuing_long_overhead": overhead["fair_queuing"],
        "short_priority_short_p90_gain": gain["short_priority"],
        "short_priority_long_overhead": overhead["short_priority"],
    }
    low, high = band["fair_queuing_short_p90_gain"]
    holds = (
        low <= gain["fair_queuing"] <= high
        and overhead["fair_queuing"] <= band["fair_queuing_long_overhead_max"]
        # Where Fair Queuing costs long requests nothing, three times nothing proves nothing.
        and overhead["short_priority"] > 0
        and overhead["short_priority"] >= band["overhead_ratio_min"] * overhead["fair_queuing"]
    )
    reading = (
        f"Fair Queuing: short P90 {100 * gain['fair_queuing']:.0f} % better for "
        f"{100 * overhead['fair_queuing']:+.0f} % on long requests; Short-Priority: "
        f"{100 * gain['short_priority']:.0f} % / {100 * overhead['short_priority']:+.0f} %"
    )
    return Finding(measured, holds, reading)


CLAIMS: tuple[Claim, ...] = (
    Claim("P1", {"policies": ("full",)}, examine_p1),
    Claim("P2", {"policies": ("full", "quota_tiered")}, examine_p2),
    Claim("P3", {"information": ("none", "coarse", "oracle")}, examine_p3),
    Claim("P4", {"noise": ("noise_00", "noise_60")}, examine_p4),
    Claim("P5", {"policies": P5_VARIANTS, "overload": ("cost_ladder", *P7_RIVALS)}, examine_p5),
    Claim("P6", {"allocation": ("fifo", "fair_queuing", "short_priority")}, examine_p6),
    Claim("P7", {"overload": ("cost_ladder", *P7_RIVALS)}, examine_p7),
)


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """One claim: what was published, what we found, the band, and in how many worlds it holds.

    Attributes:
        paper: its table in published.toml.
        worlds: whether it holds, world by world; empty if none was asked for.
        decided: whether there were the seeds that a verdict needs.

    """

    claim: str
    paper: Table
    finding: Finding
    worlds: tuple[bool, ...] = ()
    decided: bool = True

    @property
    def holds(self) -> bool | None:
        """Whether the claim holds; None if there were too few seeds to say."""
        return self.finding.holds if self.decided else None

    @property
    def word(self) -> str:
        """The same in a word."""
        return "undecided" if self.holds is None else "yes" if self.holds else "NO"

    @property
    def worlds_share(self) -> float | None:
        """The share of perturbed worlds in which the claim holds; None without worlds."""
        return sum(self.worlds) / len(self.worlds) if self.worlds else None

    def to_json(self) -> dict[str, Any]:
        """Return the claim in the form that the command promises."""
        return {
            "claim": self.claim,
            "published": self.paper["published"],
            "measured": dict(self.finding.measured),
            "band": self.paper["band"],
            "holds": self.holds,
            "worlds_share": self.worlds_share,
        }


def needs(claims: Iterable[Claim] = CLAIMS) -> dict[str, set[str]]:
    """Return the variants that the claims look at, by experiment."""
    wanted: dict[str, set[str]] = {}
    for claim in claims:
        for experiment, variants in claim.needs.items():
            wanted.setdefault(experiment, set()).update(variants)
    return wanted


def examinable(results: Results) -> list[Claim]:
    """Return the claims whose experiments were run."""
    return [claim for claim in CLAIMS if claim.needs.keys() <= results.experiments.keys()]


def verdicts(
    results: Results,
    published: Mapping[str, Table],
    worlds: Sequence[Results] = (),
    *,
    decided: bool = True,
) -> list[ClaimVerdict]:
    """Return a verdict on every claim whose experiments were run; `decided`: see `ClaimVerdict`."""
    return [
        ClaimVerdict(
            claim.id,
            published[claim.id],
            claim.examine(results, published[claim.id]["band"]),
            tuple(claim.examine(w, published[claim.id]["band"]).holds for w in worlds),
            decided,
        )
        for claim in examinable(results)
    ]
