"""P3 and P4: what knowing the magnitude is worth, and how wrong it may be."""

from penstock.experiments.claims.finding import Claim, Finding, percent
from penstock.experiments.job import Table
from penstock.experiments.results import Results


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


P3 = Claim("P3", {"information": ("none", "coarse", "oracle")}, examine_p3)
P4 = Claim("P4", {"noise": ("noise_00", "noise_60")}, examine_p4)
