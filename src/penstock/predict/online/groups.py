"""Where the lengths of a group of calls lie: centres that lean on wider groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from penstock.predict.online.kept_groups import KeptGroups
from penstock.predict.online.window import Window


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
