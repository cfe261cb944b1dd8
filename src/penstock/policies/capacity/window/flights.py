"""What flew when, and how long it should have taken: the records that the estimate learns from."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.core.signals import LEAST_S, ServiceTime
from penstock.core.upstream.breaker import DOOR
from penstock.core.upstream.ledger import MODELS_LIMIT

ENDS_KEPT = 4096
KEEP = 100
"""A line follows a slower provider after so many replies of a length: a crowd is not its speed."""
TOKENS_WEIGHT = 0.05


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
        share_s = self._share_s - flight.share_s
        if self._count:
            share_s += (now - self._at) / self._count
        mean = (now - flight.sent_at) / share_s if share_s > 0.0 else float(flight.in_flight)
        ended_at = self._ends[bisect_right(self._ends, flight.sent_at) :]
        took_s = max(LEAST_S, now - since)
        return Record(
            flight.sent_at, flight.in_flight, max(1.0, mean), ended_at, took_s, expected_s
        )

    def passed(self, refused: _Flight, *, now: float) -> int:
        """Return among how many one flew that would have been refused by now as this one was."""
        passed_by = now - DOOR * (now - refused.sent_at)
        passed = (each.in_flight for each in self._flying.values() if each.sent_at < passed_by)
        return max(passed, default=0)

    def _move(self, in_flight: int, now: float) -> None:
        if self._count:
            self._share_s += (now - self._at) / self._count
        self._count, self._at = in_flight, now


@dataclass(slots=True)
class ExpectedService:
    """One line for each model over the output's length, and one for first tokens over the prompt's.

    Attributes:
        mean_tokens: of recent replies: where lines are compared with what they were.

    """

    mean_tokens: float = 200.0
    _lines: dict[str, ServiceTime] = field(default_factory=dict)

    def of(self, model: str, guess: ServiceTime) -> ServiceTime:
        """Return the line of a model; the first time one that starts from `guess`."""
        line = self._lines.get(model)
        if line is None:
            if len(self._lines) >= MODELS_LIMIT:  # names are the callers': memory is bounded
                return next(iter(self._lines.values()))
            line = self._lines[model] = ServiceTime(guess.base_s, guess.s_per_token, keep=KEEP)
            line.first.keep = KEEP
        return line

    def observe(self, line: ServiceTime, tokens: int, latency_s: float) -> float:
        """Learn from a reply; return by how much the logarithm of the usual service fell."""
        self.mean_tokens += TOKENS_WEIGHT * (tokens - self.mean_tokens)
        before_s = line.predict_s(self.mean_tokens)
        line.observe(tokens, latency_s)
        return math.log(max(LEAST_S, before_s) / max(LEAST_S, line.predict_s(self.mean_tokens)))
