"""Fits boosted trees to recorded replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from penstock.predict.prior.boosted import (
    SHARPNESSES,
    BoostedPrior,
    GramKernel,
    blended,
    keep_calls,
    solve,
    tree_inputs,
)
from penstock.predict.prior.folds import FOLDS, FoldPriors
from penstock.predict.prior.model import LogTokens
from penstock.predict.train.datasets import Lesson
from penstock.predict.train.training import fit_prior, linear_out_of_fold

_SEEDS = (0, 1)
_TREES = 300
_CORRECTING_TREES = 200
LESSONS_MAX = 5000
"""So many lessons, the last ones, are taken: the kernels' cost grows with the cube."""
_OPTIONS: dict[str, Any] = {
    "learning_rate": 0.03,
    "num_leaves": 15,
    "min_data_in_leaf": 15,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.5,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
_MEDIAN: dict[str, Any] = {"objective": "l1"}
# A median ranks calls a little worse than a mean; clipped errors lie between the two.
_CORRECTION: dict[str, Any] = {"objective": "huber", "alpha": 0.4}


def fit_boosted(
    lessons: Sequence[Lesson],
    *,
    wider: LogTokens | None = None,
    folds: FoldPriors | None = None,
) -> BoostedPrior:
    """Fit boosters over n-grams, kernels and fold priors, each of which is fitted out of fold.

    What tells a booster about a lesson was fitted without that lesson, or it would be trusted as
    if it knew the answer.

    Args:
        lessons: at least one; of more than 5,000 the last are taken.
        wider: gives the base of a route that is not among the lessons.
        folds: fold priors of other people's replies.

    """
    lessons = lessons[-LESSONS_MAX:]
    calls = [item.call for item in lessons]
    linear = fit_prior(lessons, labelled=True, wider=wider, last_stage=None)
    base = np.array([linear.base(call) for call in calls])
    targets = np.clip(np.array([item.log_tokens for item in lessons]) - base, -4.0, 4.0)
    by_grams = linear_out_of_fold(lessons, targets, labelled=True)
    kernel = keep_calls(calls)
    by_kernels = _fit_kernels(kernel, lessons, targets)
    columns = zip(calls, base, by_grams, by_kernels, strict=True)
    rows = np.stack([tree_inputs(*of_lesson, folds) for of_lesson in columns])
    blends = np.array([blended(t, x) for t, x in zip(by_grams, by_kernels, strict=True)])
    return BoostedPrior(
        linear,
        kernel,
        _boost(rows, targets, _MEDIAN, trees=_TREES),
        _boost(rows, targets - blends, _CORRECTION, trees=_CORRECTING_TREES),
        folds,
    )


def _fit_kernels(
    kernel: GramKernel, lessons: Sequence[Lesson], targets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Set the kernel's weights; return a row a lesson, its values when its fold was left out."""
    folds = np.array([item.fold for item in lessons])
    alike = zip(*(kernel.rows(item.call) for item in lessons), strict=True)
    values = np.zeros((len(lessons), len(SHARPNESSES)))
    for number, matrix in enumerate(map(np.stack, alike)):
        kernel.weights[number] = solve(matrix, targets)
        for fold in range(FOLDS):
            rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            if rest.size and held.size:
                weights = solve(matrix[np.ix_(rest, rest)], targets[rest])
                values[held, number] = matrix[np.ix_(held, rest)] @ weights
    return values


def _boost(
    rows: NDArray[np.float64],
    targets: NDArray[np.float64],
    objective: dict[str, Any],
    *,
    trees: int,
) -> tuple[lightgbm.Booster, ...]:
    """Return boosters for one objective, one for each seed."""
    boosters = []
    for seed in _SEEDS:
        data = lightgbm.Dataset(rows, targets, params={"verbosity": -1})
        options = _OPTIONS | objective | {"seed": seed}
        if len(rows) == 1:  # LightGBM would draw 0.8 of it, which is none
            options["bagging_freq"] = 0
        boosters.append(lightgbm.train(options, data, num_boost_round=trees))
    return tuple(boosters)
