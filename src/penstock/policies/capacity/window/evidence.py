"""How well each hypothesis about the provider explains the replies, as decaying sums."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from penstock.policies.capacity.window.flights import Record

MOST, STEP = 600, 1.08


def _grid() -> tuple[int, ...]:
    """Return the capacities that are told apart: each up to 14, then by 8 %, to beyond 600."""
    grid = list(range(1, 15))
    while grid[-1] < MOST:
        grid.append(math.ceil(grid[-1] * STEP))
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
"""Means over replies: r, r², r u, u, u²."""


@dataclass(slots=True)
class Series:
    """One kind of observation, under a queue of c places and under sharing by c, for each c.

    In front of a queue an attempt that was sent as the n-th starts when n - c of the others have
    ended. Under sharing, one that flies among n > c is slower by n / c. What remains of
    r = log(latency / service), beside a slowing with u = log(number served), should be chance.

    Attributes:
        queues: whether a wait comes before what is observed; before a stream's rest there is none.
        weight: of all observations so far.
        faster: by how much the line's logarithm fell since what is summed was compared with it.

    """

    queues: bool
    weight: float = 0.0
    faster: float = 0.0
    _columns: list[list[float]] = field(default_factory=lambda: [[0.0] for _ in range(9)])
    """By capacity: r, r² and r u in a queue, the same under sharing, u and u², and the weight of
    what flew without a wait in that queue, or could not have been served behind it."""

    def reach(self, in_flight: int) -> None:
        """Tell apart up to the first capacity of at least so many."""
        size = len(self._columns[0])
        while PLACES[size - 1] < in_flight and size < len(PLACES):
            size += 1
            for column in self._columns:
                column.append(column[-1])

    def scale(self, factor: float) -> None:
        """Give everything so far another weight."""
        self.weight *= factor
        self._columns = [[each * factor for each in column] for column in self._columns]

    def add(self, record: Record, floor_s: float, weight: float) -> None:
        """Learn from one record.

        Args:
            record: what was seen; `reach` was called for it.
            floor_s: added to latency and service alike: differences below it tell nothing.
            weight: of this record beside the earlier ones.

        """
        service_s, latency_s = record.expected_s + floor_s, record.took_s + floor_s
        raw, crowd = math.log(latency_s / service_s), math.log(record.mean_in_flight)
        n, ended_at, ended = record.in_flight, record.ended_at, len(record.ended_at)
        most = max(n, record.mean_in_flight)
        impossible = -EARLY - self.faster
        r, rr, ru, s, ss, su, u_, uu, unwaited = self._columns
        self.weight += weight
        last = len(r) - 1  # which stands for all above, some of which may fly by now
        told_apart = zip((*PLACES[:last], math.inf), (*LOGS[:last], math.inf), strict=True)
        for i, (places, log_places) in enumerate(told_apart):
            x = raw - self.faster
            u = log_places if log_places < crowd else crowd
            own = x - (crowd - u)
            if most <= places:
                unwaited[i] += weight
            elif n > places and self.queues:
                ahead = n - PLACES[i]
                left_s = latency_s + record.sent_at - ended_at[ahead - 1] if ahead <= ended else 0.0
                x = math.log(left_s / service_s) - self.faster if left_s > 0.0 else impossible
                if x <= impossible:
                    x = impossible
                    unwaited[i] += weight
            wx, wu, shared = weight * x, weight * u, weight * own
            r[i] += wx
            rr[i] += wx * x
            ru[i] += wx * u
            s[i] += shared
            ss[i] += shared * own
            su[i] += shared * u
            u_[i] += wu
            uu[i] += wu * u

    def unwaited(self) -> list[float]:
        """Return how much the line must explain under a queue of each capacity.

        The others say little about the line: it may have been learnt from replies that waited.
        """
        return [max(WAITED_SHARE * self.weight, each) for each in self._columns[8]]

    def sums(self) -> Iterator[Sums]:
        """Yield the means of every hypothesis: queues from 1 place on, then sharing."""
        means = [[each / self.weight for each in column] for column in self._columns[:8]]
        for own in (means[:3], means[3:6]):
            yield from zip(*own, *means[6:], strict=True)
