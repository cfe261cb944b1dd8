"""Boosted oblivious trees in numpy: small, quick to ask, good enough to need no library."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_PLACE_VALUES = (1 << np.arange(16)).astype(np.float32)


@dataclass(slots=True, eq=False)
class ObliviousTrees:
    """Trees that ask one question per level, so that all trees are asked at once.

    Attributes:
        features: which feature each level of each tree looks at, (trees, depth).
        thresholds: above which value the answer is yes, (trees, depth).
        leaves: what each of the 2**depth outcomes adds, (trees, 2**depth).

    """

    features: NDArray[np.uint8]
    thresholds: NDArray[np.float32]
    leaves: NDArray[np.float32]
    _places: NDArray[np.intp] = field(init=False)  # `features`, as numpy indexes by them
    _firsts: NDArray[np.intp] = field(init=False)  # where the leaves of each tree begin

    def __post_init__(self) -> None:
        """Compute once what every call needs."""
        self._places = self.features.astype(np.intp)
        self._firsts = np.arange(0, self.leaves.size, self.leaves.shape[1])

    def value(self, x: NDArray[np.float32]) -> float:
        """Return the sum of all trees for one call."""
        if not self.features.size:
            return 0.0
        yes = (x.take(self._places) > self.thresholds).astype(np.float32)
        leaf = (yes @ _PLACE_VALUES[: yes.shape[1]]).astype(np.intp)  # a product of floats is fast
        leaf += self._firsts
        return float(np.add.reduce(self.leaves.take(leaf)))

    def values(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the sum of all trees for many calls."""
        out = np.zeros(len(rows))
        for tree in range(len(self.features)):
            leaf = np.zeros(len(rows), np.int64)
            for level, feature in enumerate(self.features[tree]):
                leaf += (rows[:, feature] > self.thresholds[tree, level]).astype(np.int64) << level
            out += self.leaves[tree, leaf]
        return out
