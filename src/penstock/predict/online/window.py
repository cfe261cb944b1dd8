"""The last lengths of one group of calls, and their quantiles."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

import numpy as np


def fair_sample(values: Sequence[float], size: int) -> list[float]:
    """Return at most `size` numbers that are spread as all values are, in no order.

    A window filled with them forgets large and small ones alike as it goes on.
    """
    if len(values) <= size:
        return list(values)
    spread = np.quantile(values, (np.arange(size) + 0.5) / size)
    out: list[float] = np.random.default_rng(size).permutation(spread).tolist()
    return out


class Window:
    """A sliding window of numbers that always stands sorted."""

    __slots__ = ("_arrived", "_mean", "_size", "_sorted")

    def __init__(self, size: int) -> None:
        """Keep the last `size` numbers."""
        self._size = size
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []
        self._mean: float | None = None

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float) -> None:
        """Take a number in, and let the oldest go once the window is full."""
        self._mean = None
        self._arrived.append(value)
        insort(self._sorted, value)
        if len(self._arrived) > self._size:
            oldest = self._arrived.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]

    def refill(self, values: Sequence[float]) -> None:
        """Hold a fair sample of these numbers, and nothing from before."""
        self.keep_last(0)
        for value in fair_sample(values, self._size):
            self.add(value)

    def quantile(self, share: float) -> float:
        """Return the value below which `share` of the window lies, interpolated.

        Raises:
            IndexError: the window is empty.

        """
        place = share * (len(self._sorted) - 1)
        below = int(place)
        if below + 1 >= len(self._sorted):
            return self._sorted[-1]
        low, high = self._sorted[below], self._sorted[below + 1]
        return low + (place - below) * (high - low)

    def most(self) -> float:
        """Return the largest number of the window; -inf if it is empty."""
        return self._sorted[-1] if self._sorted else -math.inf

    def keep_last(self, count: int) -> None:
        """Forget all but the last `count` numbers."""
        self._mean = None
        while len(self._arrived) > count:
            oldest = self._arrived.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]

    def mean(self) -> float:
        """Return the mean of the window.

        Raises:
            ZeroDivisionError: the window is empty.

        """
        if self._mean is None:
            self._mean = math.fsum(self._sorted) / len(self._sorted)
        return self._mean

    def values(self) -> list[float]:
        """Return the numbers in order of arrival."""
        return list(self._arrived)
