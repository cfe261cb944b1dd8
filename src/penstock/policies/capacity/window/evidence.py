"""How well each hypothesis about the provider explains the replies, as decaying sums."""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from penstock.policies.capacity.window.flights import Record


def _grid() -> tuple[int, ...]:
    """Return the capacities that are told apart: each up to 14, then by 8 %, to beyond 600."""
    grid = list(range(1, 15))
    while grid[-1] < 600:
        grid.append(math.ceil(grid[-1] * 1.08))
    return tuple(grid)


PLACES = _grid()
LOGS = tuple(math.log(places) for places in PLACES)
EARLY = 3.0
"""A reply that a hypothesis calls impossible counts as so far below the expected
log(latency / service): it refutes it once. How late a reply is has no bound: clipped, a crowd that
waits tens of services would scatter little where nobody should wait, and so speak for more."""
WAITED_SHARE = 0.25
"""Of replies, at least so many speak for the line: without it many places pass for a few."""

Sums = tuple[float, float, float, float, float]
"""Weighted sums over replies: r, r², r u, u, u²."""


def _columns() -> list[list[float]]:
    return [[0.0] for _ in range(5)]


@dataclass(slots=True)
class Series:
    """One kind of observation, under a queue of c places and under sharing by c, for each c.

    In front of a queue an attempt that was sent as the n-th starts when n - c of the others have
    ended. Under sharing, one that flies among n > c is slower by n / c. What remains of
    r = log(latency / service), beside a slowing with u = log(number served), should be chance.

    Attributes:
        queues: whether a wait comes before what is observed; before a stream's rest there is none.
        weight: of all observations so far.

    """

    queues: bool
    weight: float = 0.0
    _queue: list[list[float]] = field(default_factory=_columns)
    _sharing: list[list[float]] = field(default_factory=_columns)
    _above_weight: list[float] = field(default_factory=lambda: [0.0])
    _above: list[list[float]] = field(default_factory=_columns)
    """What both add alike from one capacity on, as differences."""
    _impossible: list[float] = field(default_factory=lambda: [0.0])

    def reach(self, in_flight: int) -> None:
        """Tell apart up to the first capacity of at least so many."""
        size = len(self._queue[0])
        while PLACES[size - 1] < in_flight and size < len(PLACES):
            size += 1
            for column in (*self._queue, *self._sharing, self._impossible):
                column.append(column[-1])
            for column in (*self._above, self._above_weight):
                column.append(0.0)

    def scale(self, factor: float) -> None:
        """Give everything so far another weight."""
        self.weight *= factor
        for columns in (self._queue, self._sharing, self._above):
            columns[:] = [[each * factor for each in column] for column in columns]
        self._above_weight = [each * factor for each in self._above_weight]
        self._impossible = [each * factor for each in self._impossible]

    def shift(self, by: float) -> None:
        """Add to every residual so far, as the service that it was compared with is another."""
        weights = [self.weight - each for each in accumulate(self._above_weight)]
        for columns, ws in (
            (self._queue, weights),
            (self._sharing, weights),
            (self._above, self._above_weight),
        ):
            r, rr, ur, u, _ = columns
            for i, w in enumerate(ws):
                rr[i] += by * (2.0 * r[i] + by * w)
                ur[i] += by * u[i]
                r[i] += by * w

    def add(self, record: Record, floor_s: float, weight: float) -> None:
        """Learn from one record.

        Args:
            record: what was seen; `reach` was called for it.
            floor_s: added to latency and service alike: differences below it tell nothing.
            weight: of this record beside the earlier ones.

        """
        n, crowd = record.in_flight, math.log(record.mean_in_flight)
        service_s, latency_s = record.expected_s + floor_s, record.took_s + floor_s
        raw = math.log(latency_s / service_s)
        size = len(self._queue[0])
        first = min(size - 1, bisect_left(PLACES, max(float(n), record.mean_in_flight)))
        r, rr, ur, u_, uu = self._queue
        s, ss, us, v_, vv = self._sharing
        ended_at, sent_at, ended = record.ended_at, record.sent_at, len(record.ended_at)
        queues, log, impossible = self.queues, math.log, self._impossible
        for i in range(first):
            u = LOGS[i]
            x = raw - crowd + u
            if u > crowd:
                u, x = crowd, raw
            wx, wu = weight * x, weight * u
            s[i] += wx
            ss[i] += wx * x
            us[i] += wx * u
            v_[i] += wu
            vv[i] += wu * u
            x = raw
            ahead = n - PLACES[i]
            if ahead > 0 and queues:
                left_s = latency_s + sent_at - ended_at[ahead - 1] if ahead <= ended else 0.0
                x = log(left_s / service_s) if left_s > 0.0 else -EARLY
                if x <= -EARLY:
                    x = -EARLY
                    impossible[i] += weight
                wx = weight * x
            else:
                wx = weight * x
            r[i] += wx
            rr[i] += wx * x
            ur[i] += wx * u
            u_[i] += wu
            uu[i] += wu * u
        for column, each in zip(
            self._above, (raw, raw * raw, raw * crowd, crowd, crowd * crowd), strict=True
        ):
            column[first] += weight * each
        self._above_weight[first] += weight
        self.weight += weight

    def unwaited(self) -> list[float]:
        """Return how much the line must explain under a queue of each capacity.

        That is what flew without a wait, and what could not have been served behind such a queue.
        The others say little about the line: it may have been learnt from replies that waited.
        """
        least = WAITED_SHARE * self.weight
        above = accumulate(self._above_weight)
        return [max(least, a + more) for a, more in zip(above, self._impossible, strict=True)]

    def sums(self) -> Iterator[Sums]:
        """Yield the sums of every hypothesis: queues from 1 place on, then sharing."""
        above = [list(accumulate(column)) for column in self._above]
        for columns in (self._queue, self._sharing):
            yield from zip(
                *(
                    [own + common for own, common in zip(column, shared, strict=True)]
                    for column, shared in zip(columns, above, strict=True)
                ),
                strict=True,
            )
