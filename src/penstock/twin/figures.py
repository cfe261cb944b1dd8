"""What is compared: deadlines met, latencies, refusals, tokens; of all calls or of some."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.metrics import RequestOutcome, RequestRecord


@dataclass(frozen=True, slots=True)
class Figures:
    """Of some calls.

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
