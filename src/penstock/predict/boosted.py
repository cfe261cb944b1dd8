"""The optional extra: LightGBM over everything that the default model knows, and kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from penstock.predict.call import CallFeatures
from penstock.predict.gram_kernel import SHARPNESSES, GramKernel, keep_calls, solve
from penstock.predict.lessons import FOLDS, Lesson
from penstock.predict.prior import LogTokens, PriorModel
from penstock.predict.training import fit_prior, linear_out_of_fold

_SEEDS = (0, 1, 2)
_TREES = 300
_LESSONS_MAX = 5000  # the kernels' cost grows with the cube
_OPTIONS: dict[str, Any] = {
    "objective": "l1",
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


@dataclass(frozen=True, slots=True, eq=False)
class BoostedPrior:
    """Boosted trees over dense features, n-gram weights and kernels.

    Attributes:
        linear: medians of groups and n-gram weights.
        kernel: recorded calls.
        boosters: differ by their seed; their mean counts.

    """

    linear: PriorModel
    kernel: GramKernel
    boosters: tuple[lightgbm.Booster, ...]

    def log_tokens(self, call: CallFeatures) -> float:
        """Return the expected logarithm of output tokens per choice."""
        base = self.linear.base(call)
        row = _inputs(call, base, self.linear.from_grams(call), self.kernel.values(call))
        said = [float(np.asarray(b.predict(row[None]))[0]) for b in self.boosters]
        return base + sum(said) / len(said)


def fit_boosted(lessons: Sequence[Lesson], *, wider: LogTokens | None = None) -> BoostedPrior:
    """Fit boosters; what n-grams and kernels tell them of a lesson is out of its fold."""
    lessons = lessons[-_LESSONS_MAX:]
    calls = [item.call for item in lessons]
    linear = fit_prior(lessons, labelled=True, wider=wider, last_stage=None)
    base = np.array([linear.base(call) for call in calls])
    targets = np.clip(np.array([item.log_tokens for item in lessons]) - base, -4.0, 4.0)
    folds = np.array([item.fold for item in lessons])
    told = linear_out_of_fold(lessons, targets, labelled=True)
    kernel = keep_calls(calls)
    alike = [np.stack(rows) for rows in zip(*(kernel.rows(call) for call in calls), strict=True)]
    said = np.zeros((len(SHARPNESSES), len(lessons)))
    for number, matrix in enumerate(alike):
        kernel.weights[number] = solve(matrix, targets)
        for fold in range(FOLDS):
            rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            if rest.size and held.size:
                weights = solve(matrix[np.ix_(rest, rest)], targets[rest])
                said[number, held] = matrix[np.ix_(held, rest)] @ weights
    rows = np.stack([_inputs(c, *x) for c, *x in zip(calls, base, told, said.T, strict=True)])
    return BoostedPrior(linear, kernel, _boost(rows, targets))


def _inputs(
    call: CallFeatures, base: float, told: float, alike: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    sums = [base + value for value in (told, *alike)]
    return np.array([base, told, *alike, *sums, *call.dense])


def _boost(rows: NDArray[np.float64], targets: NDArray[np.float64]) -> tuple[lightgbm.Booster, ...]:
    boosters = []
    for seed in _SEEDS:
        data = lightgbm.Dataset(rows, targets, params={"verbosity": -1})
        boosters.append(lightgbm.train(_OPTIONS | {"seed": seed}, data, num_boost_round=_TREES))
    return tuple(boosters)
