"""How good estimates were: the figures of the evaluate report."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.core.model import BUCKET_UPPER_TOKENS

_BORDERS = np.array([upper for _, upper in BUCKET_UPPER_TOKENS[:-1]])


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
    right = np.searchsorted(_BORDERS, lengths) == np.searchsorted(_BORDERS, p50)
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

    Counted with merge-like sorting over a Fenwick tree's worth of numpy: n log n, exact.
    """
    order = np.argsort(lengths, kind="stable")
    ranks = np.unique(p50[order], return_inverse=True)[1]
    sizes = np.unique(lengths, return_counts=True)[1]
    tree = np.zeros(int(ranks.max()) + 2, np.int64)
    right = 0.0
    pairs = 0
    seen = 0
    at = 0
    for size in sizes:
        group = ranks[at : at + size]
        for rank in group:
            below, upto = _count(tree, int(rank)), _count(tree, int(rank) + 1)
            right += below + 0.5 * (upto - below)
        for rank in group:
            _insert(tree, int(rank))
        pairs += int(size) * seen
        seen += int(size)
        at += int(size)
    return right / pairs if pairs else None


def _count(tree: NDArray[np.int64], until: int) -> int:
    total = 0
    while until > 0:
        total += int(tree[until])
        until &= until - 1
    return total


def _insert(tree: NDArray[np.int64], rank: int) -> None:
    at = rank + 1
    while at < tree.size:
        tree[at] += 1
        at += at & -at


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Return the rank correlation, ties at their mean rank; None without variance."""
    ranks_a, ranks_b = _mean_ranks(a), _mean_ranks(b)
    spread = float(ranks_a.std() * ranks_b.std())
    if spread == 0.0:
        return None
    return float(((ranks_a - ranks_a.mean()) * (ranks_b - ranks_b.mean())).mean()) / spread


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]
