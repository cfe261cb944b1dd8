"""How good estimates were: the figures of the evaluate report."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from penstock.predict.online.stats import bucket_numbers


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures over some replies; None where they are not defined (no pair, no variance).

    Attributes:
        n: replies.
        bucket_accuracy: share whose p50 lies in the bucket of the real length.
        pair_ranking: over pairs of different length, share that p50 orders right; ties half.
        spearman: rank correlation of p50 and length.
        median_multiplicative_error: exp of the median of |log p50 - log length|.
        pinball_p50_log: mean quantile loss of log p50 at 0.5.
        pinball_p90_log: mean quantile loss of log p90 at 0.9.
        p90_coverage: share of lengths that are at most p90.

    """

    n: int
    bucket_accuracy: float | None
    pair_ranking: float | None
    spearman: float | None
    median_multiplicative_error: float | None
    pinball_p50_log: float | None
    pinball_p90_log: float | None
    p90_coverage: float | None

    def as_dict(self) -> dict[str, int | float | None]:
        """Return the figures by name."""
        return asdict(self)


def score(
    lengths: NDArray[np.float64], p50: NDArray[np.float64], p90: NDArray[np.float64]
) -> Scores:
    """Return the scores of estimates, in tokens. Errors are on lengths of at least 1."""
    if lengths.size == 0:
        return Scores(0, None, None, None, None, None, None, None)
    lengths = np.maximum(1.0, lengths)
    gap50 = np.log(lengths) - np.log(p50)
    gap90 = np.log(lengths) - np.log(p90)
    right = bucket_numbers(lengths) == bucket_numbers(p50)
    return Scores(
        n=int(lengths.size),
        bucket_accuracy=float(right.mean()),
        pair_ranking=pair_ranking(lengths, p50),
        spearman=spearman(lengths, p50),
        median_multiplicative_error=math.exp(float(np.median(np.abs(gap50)))),
        pinball_p50_log=float(np.maximum(0.5 * gap50, -0.5 * gap50).mean()),
        pinball_p90_log=float(np.maximum(0.9 * gap90, -0.1 * gap90).mean()),
        p90_coverage=float((lengths <= p90).mean()),
    )


def pair_ranking(lengths: NDArray[np.float64], p50: NDArray[np.float64]) -> float | None:
    """Return the share of pairs with different lengths that p50 orders right, ties half.

    Source:
        Somers' D of p50 given the length, from Kendall's tau-b: Somers, American Sociological
        Review 27(6), 1962.

    """
    pairs, differing_p50 = _pairs_differing(lengths), _pairs_differing(p50)
    if pairs == 0:
        return None
    if differing_p50 == 0:
        return 0.5
    tau = float(kendalltau(lengths, p50).statistic)
    return 0.5 + 0.5 * tau * math.sqrt(differing_p50 / pairs)


def _pairs_differing(values: NDArray[np.float64]) -> int:
    sizes = np.unique(values, return_counts=True)[1]
    return int(values.size * (values.size - 1) - (sizes * (sizes - 1)).sum()) // 2


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Return the rank correlation, ties at their mean rank; None without variance."""
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return None
    return float(spearmanr(a, b).statistic)
