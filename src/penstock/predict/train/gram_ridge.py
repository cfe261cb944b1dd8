"""Ridge regression on hashed n-grams, all texts at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 40


class GramMatrix:
    """Texts as rows of a sparse matrix: 1 / sqrt(n) at each of a text's n places."""

    def __init__(self, texts: Sequence[NDArray[np.integer]], places: int) -> None:
        """Take in the places of each text."""
        sizes = np.array([text.size for text in texts], np.int64)
        self.places = places
        self.rows = len(texts)
        self._column = np.concatenate([*texts, np.empty(0, np.int64)]).astype(np.int64)
        self._row = np.repeat(np.arange(self.rows), sizes)
        self._value = np.repeat(1.0 / np.sqrt(np.maximum(1, sizes)), sizes)

    def times(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the matrix times a vector of weights."""
        out: NDArray[np.float64] = np.bincount(
            self._row, self._value * weights[self._column], self.rows
        ).astype(np.float64)
        return out

    def transposed_times(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the transposed matrix times a vector of rows."""
        out: NDArray[np.float64] = np.bincount(
            self._column, self._value * rows[self._row], self.places
        ).astype(np.float64)
        return out


def fit_ridge(
    matrix: GramMatrix, targets: NDArray[np.float64], *, ridge: float
) -> NDArray[np.float64]:
    """Return the weights that minimise squared error plus `ridge` times their square.

    Source:
        Conjugate gradients on the normal equations; Hestenes & Stiefel, 1952.

    """
    weights = np.zeros(matrix.places)
    left = matrix.transposed_times(targets)
    step = left.copy()
    size = float(left @ left)
    first = size
    for _ in range(_ROUNDS):
        if size <= 1e-8 * first:
            break
        turned = matrix.transposed_times(matrix.times(step)) + ridge * step
        share = size / float(step @ turned)
        weights += share * step
        left -= share * turned
        before, size = size, float(left @ left)
        step = left + (size / before) * step
    return weights
