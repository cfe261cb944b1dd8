"""Who flew with whom: what a window policy needs to look back from a reply to its dispatch."""

import math
from bisect import bisect_right
from dataclasses import dataclass

KEEP_REPLIES = 4096


@dataclass(slots=True)
class Flight:
    """One attempt in the air.

    Attributes:
        sent_at: driver seconds of its dispatch.
        in_flight: how many flew then, itself included.
        share_s: the log's integral of dt / (number in flight) at that time.
        started: True once its first token came.
        overdue: True once it should have been here.
        first_excess: how much longer than expected its first token took, over the time expected;
            nan if nobody knows.
        first_slop: up to which excess a first token shows no waiting.

    """

    sent_at: float
    in_flight: int
    share_s: float
    started: bool = False
    overdue: bool = False
    first_excess: float = math.nan
    first_slop: float = math.inf


class FlightLog:
    """The flights of one upstream and when the last `KEEP_REPLIES` replies were complete."""

    def __init__(self) -> None:
        """Start with nothing in the air."""
        self._flights: dict[int, Flight] = {}
        self._replies_at: list[float] = []
        self._share_s = 0.0
        self._in_flight = 0
        self._at = 0.0

    def sent(self, request_id: int, in_flight: int, *, now: float) -> Flight:
        """Enter an attempt and return its record; `in_flight` includes it."""
        self._move(in_flight, now)
        flight = self._flights[request_id] = Flight(now, in_flight, self._share_s)
        return flight

    def landed(self, request_id: int, in_flight: int, *, now: float) -> None:
        """Take an attempt out; `in_flight` are left."""
        self._move(in_flight, now)
        self._flights.pop(request_id, None)

    def replied(self, *, now: float) -> None:
        """Note that a reply is complete."""
        replies = self._replies_at
        replies.append(now)
        if len(replies) > KEEP_REPLIES:
            del replies[: KEEP_REPLIES // 2]

    def get(self, request_id: int) -> Flight | None:
        """Return the record of an attempt in the air."""
        return self._flights.get(request_id)

    def replies_in(self, since: float, span_s: float, *, nearest: bool = False) -> int:
        """Return how many replies were completed in (since, since + span_s].

        With `nearest` the span may end a little later: at the reply that is nearest to its end,
        because a waiting request starts at the very moment at which another one ends.
        """
        replies = self._replies_at
        end = since + span_s
        last = bisect_right(replies, end)
        if nearest and 0 < last < len(replies) and replies[last] - end < end - replies[last - 1]:
            last += 1
        return max(0, last - bisect_right(replies, since))

    def time_of_reply(self, since: float, count: int) -> float:
        """Return how long after `since` that many replies were complete; infinity if not yet."""
        replies = self._replies_at
        index = bisect_right(replies, since) + count - 1
        return replies[index] - since if index < len(replies) else math.inf

    def mean_in_flight(self, flight: Flight, *, now: float) -> float:
        """Return the harmonic mean of the number in flight since the attempt was sent.

        Under processor sharing an attempt gets 1/n of the machine, so this is the mean that
        belongs to the stretch of its latency.
        """
        share_s = self._share_now(now) - flight.share_s
        return (now - flight.sent_at) / share_s if share_s > 0 else float(flight.in_flight)

    def _share_now(self, now: float) -> float:
        if self._in_flight:
            return self._share_s + (now - self._at) / self._in_flight
        return self._share_s

    def _move(self, in_flight: int, now: float) -> None:
        if self._in_flight:
            self._share_s += (now - self._at) / self._in_flight
        self._in_flight, self._at = in_flight, now
