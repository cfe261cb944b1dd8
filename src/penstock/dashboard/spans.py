"""Counts over time, in spans of equal width."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SLOWEST_KEPT = 10
"""The slowest requests that each span remembers: a page lists some tens over all spans."""


@dataclass(frozen=True, slots=True, order=True)
class Ended:
    """One request that has ended; the order is that of its latency.

    Attributes:
        latency_s: from its arrival to its end.
        queued_s: the part of it before the last dispatch; all of it if there was none.
        ended_at: driver seconds.
        cause: what it waited for longest, as in `core.events.Why.waits`; empty if it did not wait.
        result: "completed", "late" (completed after its deadline), "cancelled", "failed" or the
            reason of its refusal.
        attempts: how often it was sent.

    """

    latency_s: float
    queued_s: float
    ended_at: float
    id: str
    traffic_class: str
    tenant: str
    upstream: str
    cause: str
    result: str
    attempts: int


@dataclass(slots=True)
class Span:
    """What happened in one stretch of time.

    Attributes:
        waits: seconds of waiting that ended here, by class and cause.
        sent, arrived: requests by class.
        ended: requests by class and result, as `Ended.result` has it.
        refused: requests by class, reason and rung.
        severity: the highest that a decision stood on.

    """

    waits: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    arrived: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    sent: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    ended: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    refused: defaultdict[tuple[str, str, str], int] = field(
        default_factory=lambda: defaultdict(int)
    )
    severity: float = 0.0
    slowest: list[Ended] = field(default_factory=list)

    def end(self, ended: Ended) -> None:
        """Count a request's end."""
        self.ended[ended.traffic_class, ended.result] += 1
        if len(self.slowest) < SLOWEST_KEPT:
            heapq.heappush(self.slowest, ended)
        elif ended.latency_s > self.slowest[0].latency_s:
            heapq.heapreplace(self.slowest, ended)

    def add(self, other: "Span") -> None:
        """Add the counts of another span."""
        for mine, more in (
            (self.arrived, other.arrived), (self.sent, other.sent), (self.ended, other.ended),
            (self.refused, other.refused), (self.waits, other.waits),
        ):  # fmt: skip
            for key, value in more.items():
                mine[key] += value  # type: ignore[index,assignment]
        self.severity = max(self.severity, other.severity)


class Spans:
    """At most so many spans; when they are full the oldest goes, or all become twice as wide.

    Args:
        start: driver seconds at which the first span begins.
        width_s: how long a span is.
        kept: how many there are at most.
        whole: whether everything since `start` is kept, in ever wider spans.

    """

    def __init__(self, start: float, *, width_s: float, kept: int, whole: bool) -> None:
        """Start empty."""
        self.start = start
        self.width_s = width_s
        self._kept = kept
        self._whole = whole
        self._spans: dict[int, Span] = {}
        self._current = Span()
        self._current_ends = -1.0

    def at(self, now: float) -> Span:
        """Return the span of this time, which never goes back."""
        if now < self._current_ends:
            return self._current
        number = int((now - self.start) // self.width_s)
        while self._whole and number >= self._kept:
            self._widen()
            number //= 2
        self._current = self._spans.setdefault(number, Span())
        self._current_ends = self.start + (number + 1) * self.width_s
        for old in [each for each in self._spans if each <= number - self._kept]:
            del self._spans[old]
        return self._current

    def since(self, then: float) -> Span:
        """Return all that happened in spans that end after `then`, added up."""
        total = Span()
        for span in self._since(then):
            total.add(span)
        return total

    def slowest_since(self, then: float) -> Iterator[Ended]:
        """Yield the slowest requests of each span that ends after `then`."""
        for span in self._since(then):
            yield from span.slowest

    def _since(self, then: float) -> Iterator[Span]:
        # Newest first, for the last minute is asked for far more often than the hour.
        for number in reversed(self._spans):
            if self.start + (number + 1) * self.width_s <= then:
                return
            yield self._spans[number]

    def series(
        self, now: float, values: Callable[[Span], dict[str, float]]
    ) -> tuple[list[float], dict[str, list[float]]]:
        """Return the middle of each span up to now, driver seconds, and what `values` sees in it.

        Spans in which nothing happened are there, with zeros.
        """
        self.at(now)
        numbers = sorted(self._spans)
        if not numbers:
            return [], {}
        times = [
            self.start + (number + 0.5) * self.width_s
            for number in range(numbers[0], numbers[-1] + 1)
        ]
        rows: dict[str, list[float]] = {}
        for number in numbers:
            for name, value in values(self._spans[number]).items():
                rows.setdefault(name, [0.0] * len(times))[number - numbers[0]] = value
        return times, rows

    def _widen(self) -> None:
        self.width_s *= 2
        wider: dict[int, Span] = {}
        for number, span in self._spans.items():
            into = wider.setdefault(number // 2, Span())
            into.add(span)
            into.slowest = heapq.nlargest(SLOWEST_KEPT, into.slowest + span.slowest)
            heapq.heapify(into.slowest)
        self._spans = wider
