"""P1 and P2: what the full stack reaches, and how near it comes to quota-tiered isolation."""

from penstock.experiments.claims.finding import Claim, Finding, millis, percent
from penstock.experiments.job import Table
from penstock.experiments.results import Results

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


P1 = Claim("P1", {"policies": ("full",)}, examine_p1)
P2 = Claim("P2", {"policies": ("full", "quota_tiered")}, examine_p2)
