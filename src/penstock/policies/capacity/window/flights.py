"""What flew when: the records that the estimate learns from, kept from the driver's own events."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

ENDS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """One reply, or the first token of one, with what ended while it was in flight.

    Attributes:
        sent_at: driver seconds.
        in_flight: attempts in flight when it was sent, itself included.
        mean_in_flight: harmonic mean of the number in flight from then on.
        ended_at: driver seconds at which other attempts ended meanwhile, in order.
        took_s: from `sent_at` to the reply (or its first token).
        expected_s: service time that a reply like it needs where nothing waits and nothing shares.

    """

    sent_at: float
    in_flight: int
    mean_in_flight: float
    ended_at: Sequence[float]
    took_s: float
    expected_s: float


@dataclass(slots=True)
class _Flight:
    sent_at: float
    in_flight: int
    share_s: float
    first_token_at: float = math.nan


@dataclass(slots=True)
class Flights:
    """The attempts in flight at one upstream, and when the latest ones ended."""

    _flying: dict[int, _Flight] = field(default_factory=dict)
    _ends: list[float] = field(default_factory=list)
    _count: int = 0
    _share_s: float = 0.0
    _at: float = 0.0

    def sent(self, request_id: int, in_flight: int, *, now: float) -> None:
        """Note an attempt; `in_flight` includes it."""
        self._move(in_flight, now)
        self._flying[request_id] = _Flight(now, in_flight, self._share_s)

    def landed(self, request_id: int, in_flight: int, *, now: float) -> None:
        """Note that an attempt no longer flies, however it ended; its place is free."""
        self._move(in_flight, now)
        if self._flying.pop(request_id, None) is not None:
            self._ends.append(now)
            if len(self._ends) > 2 * ENDS_KEPT:
                del self._ends[:ENDS_KEPT]

    def of(self, request_id: int) -> _Flight | None:
        """Return the flight, or None if it does not fly."""
        return self._flying.get(request_id)

    def record(self, flight: _Flight, expected_s: float, *, now: float, since: float) -> Record:
        """Return what the flight has shown from `since` to `now`."""
        took_s = max(1e-6, now - since)
        share_s = self._share_s - flight.share_s
        if self._count:
            share_s += (now - self._at) / self._count
        mean = (now - flight.sent_at) / share_s if share_s > 0.0 else float(flight.in_flight)
        return Record(
            flight.sent_at,
            flight.in_flight,
            max(1.0, mean),
            self._ends[bisect_right(self._ends, flight.sent_at) :],
            took_s,
            expected_s,
        )

    def _move(self, in_flight: int, now: float) -> None:
        if self._count:
            self._share_s += (now - self._at) / self._count
        self._count, self._at = in_flight, now
