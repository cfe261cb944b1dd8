"""The last few hundred calls as they were: calls like them get replies like theirs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIGNATURE_PLACES = 128
_STEP = 16  # weights moved per reply; more did not lower the error on cold streams


def signature(grams: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return a text's n-grams as 128 bytes, of which two texts share what they share of n-grams.

    0 stands for an empty place.

    Source:
        One permutation hashing: Li, Owen & Zhang, NeurIPS 2012.

    """
    out = np.zeros(SIGNATURE_PLACES, np.uint8)
    places = grams >> 9
    # Sorted upside down, the smallest gram of a place is written last and stays.
    out[places[::-1]] = 1 + ((grams[::-1] & 511) >> 1) % 254
    return out


class KernelWindow:
    """Kernel ridge regression over a ring of the last calls.

    Two calls are alike by shared n-grams and by dense features, and doubly so on one route.
    The weights are improved a few at a time with every reply, which keeps the cost flat.

    Source:
        Kernel ridge regression with Gauss-Southwell block coordinate descent.

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
        self._weights = np.zeros(size, np.float32)
        self._fitted = np.zeros(size, np.float32)  # kernel @ weights

    def row(
        self, grams: NDArray[np.uint16], dense: NDArray[np.float32], route: int
    ) -> NDArray[np.float32]:
        """Return how alike a call is to each kept one, float32 of the number kept."""
        kept = min(self.count, self.size)
        mine = signature(grams)
        filled = max(1, int(np.count_nonzero(mine)))
        mine[mine == 0] = 255  # matches nothing: kept signatures stop at 254
        equal = (self.signatures[:, :kept] == mine[:, None]).view(np.uint8)
        shared = np.add.reduce(equal, axis=0, dtype=np.uint8).astype(np.float32)
        shared /= self._filled[:kept] * np.float32(np.sqrt(filled))
        distance = self._norms[:kept] - 2.0 * (self.dense[:kept] @ dense)
        distance += np.float32(dense @ dense)
        alike = np.exp(2.0 * shared - 2.0)
        alike += 0.5 * np.exp(distance * np.float32(-0.5 / dense.size))
        alike *= 1.0 + (self.routes[:kept] == route)
        return alike

    def value(self, row: NDArray[np.float32]) -> float:
        """Return the regression's value for a call with this row."""
        return float(row @ self._weights[: row.size])

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

        The regression is for what exceeds `base`, the median of the call's group. As that
        median has moved, the targets of all kept calls of the group move along.
        """
        at = self.count % self.size
        kept = min(self.count, self.size)
        if kept == self.size:  # the oldest call leaves
            self._fitted -= self._weights[at] * self._kernel[at]
        self._weights[at] = 0.0
        mine = signature(grams)
        self.signatures[:, at] = mine
        self._filled[at] = np.sqrt(max(1, np.count_nonzero(mine)))
        self.dense[at] = dense
        self._norms[at] = dense @ dense
        self.routes[at] = route
        self.groups[at] = group
        self.lengths[at] = log_tokens
        mates = self.groups == group
        self.targets[mates] = np.clip(self.lengths[mates] - np.float32(base), -2.0, 2.0)
        self._kernel[at, :kept] = row
        self._kernel[:kept, at] = row
        self._kernel[at, at] = self._itself(mine)
        self._fitted[at] = row @ self._weights[:kept]
        self.count += 1
        self._improve(min(self.count, self.size))

    def rebuild(self, rounds: int = 200) -> None:
        """Compute kernel and weights anew from the kept calls, as after loading them."""
        kept = min(self.count, self.size)
        for at in range(kept):
            mine = self.signatures[:, at]
            self._filled[at] = np.sqrt(max(1, np.count_nonzero(mine)))
            self._norms[at] = self.dense[at] @ self.dense[at]
        kernel = self._kernel[:kept, :kept]
        for at in range(kept):
            equal = self.signatures[:, :kept] == np.where(
                self.signatures[:, at] == 0, 255, self.signatures[:, at]
            )[:, None]
            shared = equal.sum(axis=0) / (self._filled[:kept] * self._filled[at])
            distance = ((self.dense[:kept] - self.dense[at]) ** 2).sum(axis=1)
            alike = np.exp(2.0 * shared - 2.0) + 0.5 * np.exp(-0.5 * distance / self.dense.shape[1])
            kernel[at] = alike * (1.0 + (self.routes[:kept] == self.routes[at]))
        system = kernel + self._ridge * np.eye(kept, dtype=np.float32)
        if kept:
            self._weights[:kept] = np.linalg.solve(system, self.targets[:kept])
            self._fitted[:kept] = kernel @ self._weights[:kept]

    def _itself(self, mine: NDArray[np.uint8]) -> float:
        return 2.0 * ((1.0 if mine.any() else float(np.exp(-2.0))) + 0.5)

    def _improve(self, kept: int) -> None:
        gap = self.targets[:kept] - self._fitted[:kept] - self._ridge * self._weights[:kept]
        if kept <= _STEP:
            worst = np.arange(kept)
        else:
            worst = np.argpartition(np.abs(gap), kept - _STEP)[kept - _STEP :]
        block = self._kernel[np.ix_(worst, worst)]
        block.flat[:: worst.size + 1] += self._ridge
        move = np.linalg.solve(block, gap[worst])
        self._weights[worst] += move
        self._fitted[:kept] += move @ self._kernel[worst, :kept]
