"""The last few hundred calls as they were: calls like them get replies like theirs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features.text import GRAM_BITS

SIGNATURE_PLACES = 64
_ROUNDS = 2  # of improvement per reply; more did not lower the error on cold streams
_EXACT = 1e-6
MOST_BEYOND = 8.0
"""Log tokens by which a reply's length counts as beyond its group's mean, at most: between one
token and a few thousand lie eight, and one route may have both."""
_MOST_BEYOND = np.float32(MOST_BEYOND)
_MARKS = (1 + ((np.arange(1 << GRAM_BITS) & 1023) >> 2) % 254).astype(np.uint8)
_UNLIKE_ANY = np.arange(256, dtype=np.uint8)
_UNLIKE_ANY[0] = 255  # an empty place is like none: 254 is the most in a signature


def signature(grams: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return a text's n-grams as 64 bytes, of which two texts share what they share of n-grams.

    0 stands for an empty place.

    Source:
        One permutation hashing: Li, Owen & Zhang, NeurIPS 2012.

    """
    out = np.zeros(SIGNATURE_PLACES, np.uint8)
    # Sorted upside down, the smallest gram of a place is written last and stays.
    falling = grams[::-1]
    out[(falling >> 10).astype(np.intp)] = _MARKS.take(falling)
    return out


class KernelWindow:
    """Kernel ridge regression over a ring of the last calls.

    Two calls are alike by shared n-grams and by dense features, and doubly so on one route.
    The weights go on from those before with every reply, for a few rounds: the cost stays flat.

    Source:
        Kernel ridge regression by conjugate gradients; Hestenes & Stiefel, 1952.

    """

    def __init__(self, dense_size: int, *, size: int = 512, ridge: float = 0.7) -> None:
        """Start empty, with room for `size` calls."""
        self.size = size
        self._ridge = np.float32(ridge)
        self.count = 0  # ever added
        self.signatures = np.zeros((SIGNATURE_PLACES, size), np.uint8)
        self.dense = np.zeros((size, dense_size), np.float32)
        self.routes = np.zeros(size, np.uint32)
        self.groups = np.zeros(size, np.uint32)
        self.lengths = np.zeros(size, np.float32)
        self.targets = np.zeros(size, np.float32)
        self._filled = np.ones(size, np.float32)
        self._norms = np.zeros(size, np.float32)
        self._kernel = np.zeros((size, size), np.float32)
        self.weights = np.zeros(size, np.float32)
        self._fitted = np.zeros(size, np.float32)  # kernel @ weights

    def row(
        self, grams: NDArray[np.uint16], dense: NDArray[np.float32], route: int
    ) -> NDArray[np.float32]:
        """Return how alike a call is to each kept one, float32 of the number kept."""
        return self._alike(signature(grams), dense, route, min(self.count, self.size))

    def _alike(
        self, mine: NDArray[np.uint8], dense: NDArray[np.float32], route: int, kept: int
    ) -> NDArray[np.float32]:
        filled = max(1, int(np.count_nonzero(mine)))
        equal = (self.signatures[:, :kept] == _UNLIKE_ANY.take(mine)[:, None]).view(np.uint8)
        alike: NDArray[np.float32]
        alike = np.add.reduce(equal, axis=0, dtype=np.uint8).astype(np.float32)
        alike /= self._filled[:kept] * np.float32(math.sqrt(filled))
        alike *= 2.0
        alike -= 2.0
        np.exp(alike, out=alike)
        near = self.dense[:kept] @ dense
        near *= -2.0
        near += self._norms[:kept]
        near += dense @ dense
        near *= np.float32(-0.5 / dense.size)
        np.exp(near, out=near)
        near *= 0.5
        alike += near
        alike += alike * (self.routes[:kept] == route)
        return alike

    def value(self, row: NDArray[np.float32]) -> float:
        """Return the regression's value for a call with this row."""
        return float(row @ self.weights[: row.size])

    def add(
        self,
        row: NDArray[np.float32],
        grams: NDArray[np.uint16],
        dense: NDArray[np.float32],
        route: int,
        group: int,
        log_tokens: float,
        base: float,
    ) -> None:
        """Keep a call in place of the oldest, and move the weights towards the solution.

        The regression is for what exceeds `base`, the mean of the call's group. As that
        mean has moved, the targets of all kept calls of the group move along.
        """
        at = self.count % self.size
        kept = min(self.count, self.size)
        if kept == self.size:  # the oldest call leaves
            self._fitted -= self.weights[at] * self._kernel[at]
        self.weights[at] = 0.0
        mine = signature(grams)
        self.signatures[:, at] = mine
        self._filled[at] = np.sqrt(max(1, int(np.count_nonzero(mine))))
        self.dense[at] = dense
        self._norms[at] = dense @ dense
        self.routes[at] = route
        self.groups[at] = group
        self.lengths[at] = log_tokens
        mates = (self.groups == group).nonzero()[0]
        beyond = self.lengths.take(mates)
        beyond -= np.float32(base)
        np.minimum(beyond, _MOST_BEYOND, out=beyond)  # np.clip takes five times as long
        self.targets[mates] = np.maximum(beyond, -_MOST_BEYOND, out=beyond)
        self._kernel[at, :kept] = row
        self._kernel[:kept, at] = row
        self._kernel[at, at] = self._itself(mine)
        self._fitted[at] = row @ self.weights[:kept]
        self.count += 1
        self._improve(min(self.count, self.size))

    def rebuild(self) -> None:
        """Compute what follows from the kept calls and weights, as after loading them."""
        kept = min(self.count, self.size)
        dense = self.dense[:kept]
        self._norms[:kept] = np.einsum("ij,ij->i", dense, dense)
        filled = np.count_nonzero(self.signatures[:, :kept], axis=0)
        self._filled[:kept] = np.sqrt(np.maximum(1, filled))
        for at in range(kept):
            row = self._alike(self.signatures[:, at], dense[at], int(self.routes[at]), kept)
            self._kernel[at, :kept] = row
        self._fitted[:kept] = self._kernel[:kept, :kept] @ self.weights[:kept]

    def _itself(self, mine: NDArray[np.uint8]) -> float:
        return 2.0 * ((1.0 if mine.any() else float(np.exp(-2.0))) + 0.5)

    def _improve(self, kept: int) -> None:
        kernel = self._kernel[:kept, :kept]
        weights, fitted = self.weights[:kept], self._fitted[:kept]
        left = self.targets[:kept] - fitted - self._ridge * weights
        step = left
        size = float(left @ left)
        for _ in range(_ROUNDS):
            if size < _EXACT:
                return
            seen = kernel @ step
            share = np.float32(size / float(step @ seen + self._ridge * (step @ step)))
            weights += share * step
            fitted += share * seen
            left = left - share * (seen + self._ridge * step)
            before, size = size, float(left @ left)
            step = left + np.float32(size / before) * step
