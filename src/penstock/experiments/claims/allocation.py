"""P6: what round robin and strict priority gain for short requests, and who pays."""

from penstock.experiments.claims.finding import Claim, Finding
from penstock.experiments.job import Table
from penstock.experiments.results import Results

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


P6 = Claim("P6", {"allocation": ("fifo", "fair_queuing", "short_priority")}, examine_p6)
