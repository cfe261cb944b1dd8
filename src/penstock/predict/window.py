"""The last lengths of one group of calls, and their quantiles."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque


class Window:
    """A sliding window of numbers that always stands sorted."""

    __slots__ = ("_arrived", "_size", "_sorted")

    def __init__(self, size: int) -> None:
        """Keep the last `size` numbers."""
        self._size = size
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float) -> None:
        """Take a number in, and let the oldest go once the window is full."""
        self._arrived.append(value)
        insort(self._sorted, value)
        if len(self._arrived) > self._size:
            oldest = self._arrived.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]

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

    def keep_last(self, count: int) -> None:
        """Forget all but the last `count` numbers."""
        while len(self._arrived) > count:
            oldest = self._arrived.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]

    def mean(self) -> float:
        """Return the mean of the window.

        Raises:
            ZeroDivisionError: the window is empty.

        """
        return math.fsum(self._sorted) / len(self._sorted)

    def values(self) -> list[float]:
        """Return the numbers in order of arrival."""
        return list(self._arrived)
