"""What is known of groups of calls: windows of lengths, and centres that lean on wider groups."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")
GROUPS_MAX = 1000
_ON_TRIAL = 4  # one place in so many, beside the others, is for names used once


class KeptGroups(Generic[T]):
    """Keeps the groups that are used, within a limit; of those the longest unused goes first.

    A name used for the first time is on trial: it can push out others on trial, but no group
    that was used again. Callers make one-off names easily (a route derived from a system prompt
    with a customer's name in it), and they would otherwise flush what took days to learn.

    Source:
        Segmented LRU; Karedla, Love & Wherry, IEEE Computer 1994.

    """

    def __init__(self, limit: int = GROUPS_MAX) -> None:
        """Keep `limit` groups used more than once, and a quarter as many used once."""
        self._limit = limit
        self._trials = max(1, limit // _ON_TRIAL)
        self._proven: OrderedDict[str, T] = OrderedDict()
        self._trial: OrderedDict[str, T] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._proven or name in self._trial

    def __len__(self) -> int:
        return len(self._proven) + len(self._trial)

    def get(self, name: str) -> T | None:
        """Return a group, or None; this is no use of it."""
        found = self._proven.get(name)
        return self._trial.get(name) if found is None else found

    def use(self, name: str, make: Callable[[], T]) -> T:
        """Return a group, made by `make` if there is none."""
        found = self._proven.get(name)
        if found is not None:
            self._proven.move_to_end(name)
            return found
        found = self._trial.pop(name, None)
        if found is not None:
            self.put(name, found)
            return found
        made = self._trial[name] = make()
        if len(self._trial) > self._trials:
            self._trial.popitem(last=False)
        return made

    def put(self, name: str, group: T) -> None:
        """Set a group, as one that is used."""
        self._trial.pop(name, None)
        self._proven[name] = group
        self._proven.move_to_end(name)
        if len(self._proven) > self._limit:
            self._proven.popitem(last=False)

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield names and groups, longest unused first, those on trial before all."""
        yield from self._trial.items()
        yield from self._proven.items()


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


class GroupCentres:
    """Windowed means or medians per group, each shrunk towards the next wider group.

    With n values seen a group counts n / (n + k): one reply of its own already outweighs all
    that wider groups know (k = 0.5 was best of 0.3 to 3 on cold streams), as routes differ
    by more than the replies within one.
    """

    def __init__(
        self,
        *,
        window: int,
        shrink: float,
        start: float,
        mean: bool,
        narrow: float | None = None,
    ) -> None:
        """Start without any group.

        Args:
            window: values that a group remembers.
            shrink: k above, in values.
            start: what is answered before anything was seen.
            narrow: k of the third level (a model on a route), which differs less from the
                second than that from the first; None is `shrink`.
            mean: use the mean. It moves smoothly where a route has two kinds of replies and the
                median jumps from one to the other; the median is the more robust.

        """
        self._window = window
        self._shrink = shrink
        self.start = start
        self._mean = mean
        self._narrow = shrink if narrow is None else narrow
        self._groups: KeptGroups[Window] = KeptGroups()

    def value(self, keys: Sequence[str]) -> float:
        """Return the centre for groups from wide to narrow."""
        value = self.start
        for level, key in enumerate(keys):
            window = self._groups.get(key)
            if window is not None:
                count = len(window)
                share = count / (count + (self._shrink if level < 2 else self._narrow))
                centre = window.mean() if self._mean else window.quantile(0.5)
                value += share * (centre - value)
        return value

    def quantiles(self, key: str, shares: Sequence[float], *, at_least: int) -> list[float] | None:
        """Return quantiles of a group's window; None where it holds fewer values than that."""
        window = self._groups.get(key)
        if window is None or len(window) < at_least:
            return None
        return [window.quantile(share) for share in shares]

    def most(self, keys: Sequence[str]) -> float:
        """Return the largest value that these groups remember; -inf if they remember none."""
        windows = [window for key in keys if (window := self._groups.get(key)) is not None]
        return max((window.most() for window in windows), default=-math.inf)

    def add(self, keys: Sequence[str], value: float) -> None:
        """Take a value into all its groups."""
        for key in keys:
            self._groups.use(key, self._empty).add(value)

    def _empty(self) -> Window:
        return Window(self._window)

    def settle(self, seen: Mapping[str, Sequence[float]]) -> None:
        """Fill the groups' windows with a fair sample of these values, not the last of them."""
        for key, values in seen.items():
            window = self._groups.get(key)
            if window is not None:
                window.refill(values)

    def keep_last(self, key: str, count: int) -> None:
        """Let a group forget all but its last `count` values, as after a change."""
        window = self._groups.get(key)
        if window is not None:
            window.keep_last(count)

    def export(self) -> dict[str, list[float]]:
        """Return all windows, longest unused first, values in order of arrival."""
        return {key: window.values() for key, window in self._groups.items()}

    def restore(self, state: dict[str, list[float]]) -> None:
        """Take over what `export` gave."""
        for key, values in state.items():
            for value in values:
                self.add((key,), value)
