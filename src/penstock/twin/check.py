"""The twin checks itself: fitted to the log's first part, it must tell what came after."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.metrics import RequestOutcome, RequestRecord
from penstock.sim.workload import Workload
from penstock.twin.history import History
from penstock.twin.rerun import Luck, Providers, rerun, workload_of

FITTED_SHARE = 0.6
POINTS, PER_CENT = 2.0, 15.0
"""How far deadlines met, and the latencies' P50 and P95, may be off."""
LEAST_CALLS = 100
"""In the time held back: of fewer, one late call is more than a point."""
SEEDS = (1, 2, 3)
_DRAWN = frozenset(("limits", "faults", "cached_share"))
"""Keys of a provider's table that bring chance of their own."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Deadlines met, refusals and latencies of some calls.

    Attributes:
        calls: how many.
        met: share that completed by its deadline. refused: share that the scheduler refused.
        p50_s, p95_s: latency of the complete ones; nan if there is none.

    """

    calls: int
    met: float
    refused: float
    p50_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Check:
    """What came of the check.

    Attributes:
        real, twin: figures of the calls that came in the time held back; the twin's are means.
        worse: how much further off, as a logarithm, single replies are told than those of the
            part that was fitted.

    """

    real: Figures
    twin: Figures
    worse: float = 0.0

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the twin is not to be trusted, in words; empty if it is."""
        return tuple(_faults(self))

    @property
    def passed(self) -> bool:
        """Whether the twin may be trusted."""
        return not self.faults

    @property
    def distance(self) -> float:
        """How far off the worst figure is, in bounds: 1 is at the bound."""
        return _distance(self)


def split_at(history: History) -> float:
    """Return when the time that is held back begins."""
    calls = history.calls
    return calls[int(FITTED_SHARE * (len(calls) - 1))].request.arrived_at


def held_back(history: History, since: float) -> list[int]:
    """Return the places of the calls that came since then and have ended."""
    return [
        n
        for n, call in enumerate(history.calls)
        if call.request.arrived_at > since and call.outcome is not None
    ]


def check(
    history: History,
    providers: Providers,
    since: float,
    *,
    luck: Luck | None = None,
    worse: float = 0.0,
    seeds: Sequence[int] = SEEDS,
) -> Check:
    """Run the log's own configuration at these providers and compare from `since` on.

    Args:
        history: what really happened.
        providers: fitted to what came before.
        since: when the time that is held back begins.
        luck: that calls are inferred to have had; the rest is drawn.
        worse: how much further off single replies are told than in the part that was fitted.
        seeds: of what is drawn; the twin's figures are means over them.

    """
    chosen = held_back(history, since)
    real = figures_of([call.record() for call in history.calls], chosen)
    workload = workload_of(history, luck)
    found: list[Figures] = []
    for seed in seeds if _draws(workload, providers) else seeds[:1]:
        run = rerun(history, providers, seed=seed, workload=workload, since=since)
        found.append(figures_of(run.records, chosen))
    return Check(real, mean_of(found), worse)


def _draws(workload: Workload, providers: Providers) -> bool:
    """Return whether anything is left to chance: luck that is not known, or a refusal more."""
    known = all(load.luck is not None and load.streamed is not None for load in workload.loads)
    return not known or any(_DRAWN & table.keys() for table in providers.values())


def figures_of(records: Sequence[RequestRecord], chosen: Iterable[int]) -> Figures:
    """Return the figures of the records at these places."""
    found = [records[n] for n in chosen]
    if not found:
        return Figures(0, np.nan, np.nan, np.nan, np.nan)
    took = np.array([r.latency_s for r in found if r.outcome is RequestOutcome.COMPLETED])
    p50, p95 = np.percentile(took, (50, 95), method="inverted_cdf") if len(took) else (np.nan,) * 2
    met = sum(r.in_time for r in found) / len(found)
    refused = sum(r.outcome is RequestOutcome.SHED for r in found) / len(found)
    return Figures(len(found), met, refused, float(p50), float(p95))


def mean_of(found: Sequence[Figures]) -> Figures:
    """Return the means over runs; of percentiles of those runs in which calls completed."""
    rows = np.array([[f.met, f.refused, f.p50_s, f.p95_s] for f in found])
    known = ~np.isnan(rows)
    sums = np.where(known, rows, 0.0).sum(axis=0)
    met, refused, p50, p95 = np.where(known.any(axis=0), sums / known.sum(axis=0).clip(1), np.nan)
    return Figures(found[0].calls, float(met), float(refused), float(p50), float(p95))


def _faults(checked: Check) -> list[str]:
    real, twin = checked.real, checked.twin
    if real.calls < LEAST_CALLS:
        return [
            f"only {real.calls} calls ended in the held-back time, not {LEAST_CALLS}: let it grow"
        ]
    found = []
    points = 100.0 * (twin.met - real.met)
    if abs(points) > POINTS:
        found.append(
            f"deadlines met: {real.met:.1%} really, {twin.met:.1%} by the twin: more than "
            f"{POINTS:g} points apart"
        )
    for name, ours, theirs in (
        ("P50", real.p50_s, twin.p50_s),
        ("P95", real.p95_s, twin.p95_s),
    ):
        if not abs(theirs - ours) <= PER_CENT / 100.0 * ours:
            found.append(
                f"latency {name}: {ours:.2f} s really, {theirs:.2f} s by the twin: more than "
                f"{PER_CENT:g} % apart"
            )
    if checked.worse > PER_CENT / 100.0:
        found.append(
            f"single replies are told {checked.worse:.0%} worse than in the part that was fitted: "
            f"more than {PER_CENT:g} %"
        )
    return found


def _distance(found: Check) -> float:
    real, twin = found.real, found.twin
    worst = max(abs(twin.met - real.met) * 100.0 / POINTS, found.worse * 100.0 / PER_CENT)
    for ours, theirs in ((real.p50_s, twin.p50_s), (real.p95_s, twin.p95_s)):
        off = abs(theirs - ours) / ours * 100.0 / PER_CENT
        worst = max(worst, 1e9 if np.isnan(off) else off)
    return worst
