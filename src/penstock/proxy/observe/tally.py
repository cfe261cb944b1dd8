"""Counting on the hot path: plain dictionaries, turned into Prometheus text only when scraped.

A prometheus_client counter takes a lock and two calls per increment; with a dozen of them in a
request that is a tenth of the sidecar's budget. Everything here runs on one event loop.
"""

from bisect import bisect_left
from collections import defaultdict

Labels = tuple[str, ...]


class Tally:
    """Counts by labels. `add` is the hot path."""

    __slots__ = ("counts", "help", "labels", "name")

    def __init__(self, name: str, text: str, labels: Labels = ()) -> None:
        """Start at nothing."""
        self.name = name
        self.help = text
        self.labels = labels
        self.counts: defaultdict[Labels, float] = defaultdict(float)

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Count."""
        self.counts[labels] += by


class Spread:
    """A histogram by labels."""

    __slots__ = ("_bounds", "help", "labels", "name", "rows")

    def __init__(self, name: str, text: str, labels: Labels, bounds: tuple[float, ...]) -> None:
        """Start at nothing."""
        self.name = name
        self.help = text
        self.labels = labels
        self._bounds = bounds
        self.rows: dict[Labels, list[float]] = {}

    def add(self, value: float, *labels: str) -> None:
        """Count a value; the row's last place is the sum."""
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = [0.0] * (len(self._bounds) + 2)
        row[bisect_left(self._bounds, value)] += 1.0
        row[-1] += value

    def buckets(self, labels: Labels) -> tuple[list[tuple[str, float]], float]:
        """Return cumulative (bound, count) pairs as Prometheus wants them, and the sum."""
        row = self.rows[labels]
        total = 0.0
        pairs = []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), row[:-1], strict=True):
            total += count
            pairs.append((bound, total))
        return pairs, row[-1]
