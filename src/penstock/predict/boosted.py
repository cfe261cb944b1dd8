"""The optional last stage: LightGBM's trees instead of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

_SEEDS = (0, 1, 2)
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
_TREES = 300


@dataclass(frozen=True, slots=True, eq=False)
class BoostedTrees:
    """The mean of a few boosters that differ by their seed."""

    boosters: tuple[lightgbm.Booster, ...]

    def value(self, x: NDArray[np.float32]) -> float:
        """Return the correction for one call."""
        return float(self.values(x[None])[0])

    def values(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the correction for many calls."""
        said = [np.asarray(b.predict(rows, num_threads=1)) for b in self.boosters]
        mean: NDArray[np.float64] = np.mean(said, axis=0)
        return mean


def grow_boosted(rows: NDArray[np.float32], targets: NDArray[np.float64]) -> BoostedTrees:
    """Fit the boosters to targets, by absolute error. Same data, same trees."""
    boosters = []
    for seed in _SEEDS:
        data = lightgbm.Dataset(rows, targets, params={"verbosity": -1})
        options = _OPTIONS | {"seed": seed}
        boosters.append(lightgbm.train(options, data, num_boost_round=_TREES))
    return BoostedTrees(tuple(boosters))
