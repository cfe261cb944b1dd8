"""The last few hundred calls as they were: calls like them get replies like theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features.call import CallFeatures
from penstock.predict.features.text import GRAM_BITS

SIGNATURE_PLACES = 64
_ROUNDS = 6  # of improvement per batch
SIZE = 512
_RIDGE = np.float32(0.7)
_EXACT = 1e-6
_TWO = np.float32(2.0)
_LOG_HALF = np.float32(math.log(0.5))
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
    The weights go on from those before with every batch, for a few rounds: the cost stays flat.

    Source:
        Kernel ridge regression by conjugate gradients; Hestenes & Stiefel, 1952.

    """

    def __init__(self, dense_size: int) -> None:
        """Start empty, with room for `SIZE` calls."""
        self.count = 0  # ever added
        self.signatures = np.zeros((SIGNATURE_PLACES, SIZE), np.uint8)
        self.dense = np.zeros((SIZE, dense_size), np.float32)
        self.routes = np.zeros(SIZE, np.uint32)
        self.groups = np.zeros(SIZE, np.uint32)
        self.lengths = np.zeros(SIZE, np.float32)
        self.targets = np.zeros(SIZE, np.float32)
        self._per_place = np.ones(SIZE, np.float32)  # 1 / root of a signature's filled places
        self._squares = np.zeros(SIZE, np.float32)
        self._near = np.zeros((dense_size + 2, SIZE), np.float32)
        self._kernel = np.zeros((SIZE, SIZE), np.float32)
        self.weights = np.zeros(SIZE, np.float32)
        self._fitted = np.zeros(SIZE, np.float32)  # kernel @ weights

    def value(self, call: CallFeatures, mine: NDArray[np.uint8]) -> float:
        """Return the regression's value for a call with this signature."""
        row = self._alike(
            self.signatures[:, : self.count] == _UNLIKE_ANY.take(mine)[:, None],
            2.0 / math.sqrt(max(1, int(np.count_nonzero(mine)))),
            _exponents(call.dense, call.dense @ call.dense),
            np.uint32(call.route_sum),  # of Python's own int each comparison makes one
        )
        return float(row @ self.weights[: row.size])

    def _rows(self, places: slice) -> NDArray[np.float32]:
        """Return how alike kept calls, one a row, are to each kept one."""
        mine = self.signatures[:, places]
        return self._alike(
            self.signatures[:, None, : self.count] == _UNLIKE_ANY.take(mine)[:, :, None],
            2.0 * self._per_place[places, None],
            _exponents(self.dense[places], self._squares[places]),
            self.routes[places, None],
        )

    def _alike(
        self,
        equal: NDArray[np.bool_],
        scale: NDArray[np.float32] | float,
        exponents: NDArray[np.float32],
        routes: NDArray[np.uint32] | np.uint32,
    ) -> NDArray[np.float32]:
        """Return how alike calls are to each kept one; the last axis is over those.

        Args:
            equal: which places of their signatures are those of each kept one.
            scale: 2 over the root of how many places of their signatures are filled.
            exponents: see `_exponents`.
            routes: checksums of their routes.

        """
        alike: NDArray[np.float32]
        alike = np.add.reduce(equal.view(np.uint8), axis=0, dtype=np.uint8).astype(np.float32)
        alike *= self._per_place[: self.count]
        alike *= scale
        alike -= _TWO
        np.exp(alike, out=alike)
        near = exponents @ self._near[:, : self.count]
        np.exp(near, out=near)
        alike += near
        alike += alike * (self.routes[: self.count] == routes)
        return alike

    def add(
        self,
        calls: Sequence[CallFeatures],
        signatures: Sequence[NDArray[np.uint8]],
        groups: Sequence[int],
        log_tokens: Sequence[float],
        bases: Sequence[float],
    ) -> None:
        """Keep calls in place of the oldest, and move the weights towards the solution.

        The regression is for what exceeds `bases`, the means of the calls' groups. As a group's
        mean has moved, the targets of all its kept calls move along. Many calls at once cost
        hardly more than one: most of the cost is that of moving the weights.
        """
        first = self.count % SIZE
        room = SIZE - first
        if len(calls) > room:
            parts = (calls, signatures, groups, log_tokens, bases)
            self.add(*(part[:room] for part in parts))  # type: ignore[arg-type]
            self.add(*(part[room:] for part in parts))  # type: ignore[arg-type]
            return
        places = slice(first, first + len(calls))
        # What the places' old calls added; a place not used yet has weight 0.
        self._fitted -= self.weights[places] @ self._kernel[places]
        self.weights[places] = 0.0
        self.signatures[:, places] = np.stack(signatures, axis=1)
        self.dense[places] = [call.dense for call in calls]
        self.routes[places] = [call.route_sum for call in calls]
        self.groups[places] = groups
        self.lengths[places] = log_tokens
        self._derive(places)
        self.count += len(calls)
        kept = min(self.count, SIZE)
        for group, base in dict(zip(groups, bases, strict=True)).items():
            self._aim(group, base)
        rows = self._rows(places)
        self._kernel[places, :kept] = rows
        self._kernel[:kept, places] = rows.T
        self._fitted[places] = rows @ self.weights[:kept]
        self._improve(kept)

    def _aim(self, group: int, base: float) -> None:
        """Set the targets of a group's kept calls to how far they are beyond its mean."""
        mates = (self.groups == group).nonzero()[0]
        beyond = self.lengths.take(mates)
        beyond -= np.float32(base)
        np.minimum(beyond, _MOST_BEYOND, out=beyond)  # np.clip takes five times as long
        self.targets[mates] = np.maximum(beyond, -_MOST_BEYOND, out=beyond)

    def _derive(self, places: slice) -> None:
        """Compute what `_alike` needs of kept calls.

        The distance of dense features stands in an exponent, its squares multiplied out.
        """
        dense = self.dense[places]
        filled = np.maximum(1, np.count_nonzero(self.signatures[:, places], axis=0))
        self._per_place[places] = 1.0 / np.sqrt(filled)
        self._squares[places] = np.einsum("ij,ij->i", dense, dense)
        scale = np.float32(-0.5 / dense.shape[1])
        self._near[:-2, places] = (-2.0 * scale) * dense.T
        self._near[-2, places] = scale
        self._near[-1, places] = scale * self._squares[places] + _LOG_HALF

    def rebuild(self) -> None:
        """Compute what follows from the kept calls and weights, as after loading them."""
        kept = min(self.count, SIZE)
        self._derive(slice(kept))
        for at in range(kept):  # one by one, for the memory
            self._kernel[at, :kept] = self._rows(slice(at, at + 1))[0]
        self._fitted[:kept] = self._kernel[:kept, :kept] @ self.weights[:kept]

    def _improve(self, kept: int) -> None:
        kernel = self._kernel[:kept, :kept]
        weights, fitted = self.weights[:kept], self._fitted[:kept]
        left = self.targets[:kept] - fitted - _RIDGE * weights
        step = left
        size = float(left @ left)
        for _ in range(_ROUNDS):
            if size < _EXACT:
                return
            seen = kernel @ step
            share = np.float32(size / float(step @ seen + _RIDGE * (step @ step)))
            weights += share * step
            fitted += share * seen
            left = left - share * (seen + _RIDGE * step)
            before, size = size, float(left @ left)
            step = left + np.float32(size / before) * step


def _exponents(
    dense: NDArray[np.float32], square: NDArray[np.float32] | np.float32
) -> NDArray[np.float32]:
    """Return features, their square and 1, so that the product with `_near` is an exponent."""
    out = np.empty((*dense.shape[:-1], dense.shape[-1] + 2), np.float32)
    out[..., :-2] = dense
    out[..., -2] = square
    out[..., -1] = 1.0
    return out
