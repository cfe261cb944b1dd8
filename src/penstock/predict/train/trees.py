"""Grows oblivious trees by gradient boosting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.predict.prior.model import ObliviousTrees

_BINS = 32
_RATE = 0.05  # what each tree's correction is multiplied by
_LEAF_PRIOR = 10.0  # replies with correction zero that each leaf is thought to hold besides
_CLIP = 0.4  # errors beyond it count as it (Huber), in log tokens


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """How trees are grown; defaults were chosen by cross-validation over prompts.

    Attributes:
        trees: how many.
        depth: questions per tree.
        feature_share: share of features on offer to each tree.

    """

    trees: int = 250
    depth: int = 4
    feature_share: float = 0.5


def grow(
    rows: NDArray[np.float32],
    targets: NDArray[np.float64],
    options: TreeOptions = TreeOptions(),
) -> ObliviousTrees:
    """Fit trees to targets by gradient boosting on clipped errors.

    Source:
        Friedman, Annals of Statistics 2001; oblivious trees as in CatBoost (Prokhorenkova et
        al., NeurIPS 2018).

    """
    chance = np.random.default_rng(0)
    borders = _borders(rows)
    binned = np.stack(
        [np.searchsorted(border, rows[:, f], side="left") for f, border in enumerate(borders)], 1
    )
    count = max(1, round(options.feature_share * rows.shape[1]))
    error = targets.astype(np.float64).copy()
    grown = []
    for _ in range(options.trees):
        offered = np.sort(chance.choice(rows.shape[1], count, replace=False))
        drawn = np.flatnonzero(chance.random(len(rows)) < 0.8)
        pull = np.clip(error, -_CLIP, _CLIP)
        questions, leaf = _grow_one(binned, borders, drawn, pull, offered, options)
        total = np.bincount(leaf[drawn], pull[drawn], 1 << options.depth)
        held = np.bincount(leaf[drawn], minlength=1 << options.depth)
        leaves = _RATE * total / (held + _LEAF_PRIOR)
        error -= leaves[leaf]
        grown.append((questions, leaves))
    return ObliviousTrees(
        np.array([[f for f, _ in q] for q, _ in grown], np.uint8).reshape(-1, options.depth),
        np.array([[borders[f][b] for f, b in q] for q, _ in grown], np.float32).reshape(
            -1, options.depth
        ),
        np.array([leaves for _, leaves in grown], np.float32).reshape(-1, 1 << options.depth),
    )


def _borders(rows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return up to 31 thresholds per feature, between its quantiles; at least one."""
    shares = np.linspace(0, 1, _BINS + 1)[1:-1]
    out = []
    for column in rows.T:
        border = np.unique(np.quantile(column, shares, method="lower").astype(np.float32))
        out.append(border)
    return out


def _grow_one(
    binned: NDArray[np.int64],
    borders: Sequence[NDArray[np.float32]],
    drawn: NDArray[np.int64],
    pull: NDArray[np.float64],
    offered: NDArray[np.int64],
    options: TreeOptions,
) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Return a tree: (feature, border) of each level, and in which leaf each row falls."""
    leaf = np.zeros(len(binned), np.int64)
    sample = binned[np.ix_(drawn, offered)]
    weights = np.repeat(pull[drawn], offered.size)
    asks = np.arange(_BINS - 1) < np.array([borders[f].size for f in offered])[:, None]
    questions: list[tuple[int, int]] = []
    for level in range(options.depth):
        nodes = 1 << level
        place = (leaf[drawn][:, None] * offered.size + np.arange(offered.size)) * _BINS + sample
        size = nodes * offered.size * _BINS
        shape = (nodes, offered.size, _BINS)
        total = np.bincount(place.ravel(), weights, size).reshape(shape).cumsum(2)
        held = np.bincount(place.ravel(), minlength=size).reshape(shape).cumsum(2)
        rest_total, rest_held = total[:, :, -1:] - total, held[:, :, -1:] - held
        gain = total**2 / (held + _LEAF_PRIOR)
        gain += rest_total**2 / (rest_held + _LEAF_PRIOR)
        gains = np.where(asks, gain.sum(0)[:, :-1], -1.0)
        feature, border = divmod(int(gains.argmax()), _BINS - 1)
        questions.append((int(offered[feature]), border))
        leaf += (binned[:, offered[feature]] > border).astype(np.int64) << level
    return questions, leaf
