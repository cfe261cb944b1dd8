"""A window steered by what replies reveal about waiting hidden inside the provider."""

import math
from bisect import bisect_right
from dataclasses import dataclass

from penstock.core.events import RefusalCause
from penstock.core.policy import Reply
from penstock.core.service_time import ServiceTime
from penstock.core.ticket import Ticket

TOLERANCE = 0.1
TOLERANCE_S = 0.02


@dataclass(slots=True)
class _Flight:
    sent_at: float
    in_flight: int
    share: float
    probe: bool


class Residual:
    """First version: estimates the capacity from each reply that waited.

    Source:
        Ours.

    """

    def __init__(self, *, start: float = 16, growth: float = 2.0) -> None:
        """Start with a guess and double while nothing waits."""
        self.window = start
        self._growth = growth
        self._ramping = True
        self._flights: dict[int, _Flight] = {}
        self._done: list[float] = []
        self._share = 0.0  # integral of dt / in flight
        self._in_flight = 0
        self._at = 0.0
        self._probe_at = 0.0
        self._probe_wait_s = 1.0
        self._latency_s = 1.0
        self._logs: list[tuple[float, float]] = []
        self._shrunk_at = -math.inf

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Say whether one more fits, or may probe."""
        window = int(self.window)
        if in_flight < window:
            return True
        if self._ramping or now < self._probe_at or in_flight >= window + 1 + window // 16:
            return False
        if ticket is None:
            return True
        return ticket.latest_start - now >= 2.0 * self._latency_s / window

    def on_dispatch(self, ticket: Ticket, in_flight: int, *, now: float) -> None:
        """Remember what flew."""
        self._move(in_flight, now)
        self._flights[ticket.request.id] = _Flight(
            now, in_flight, self._share, in_flight > int(self.window)
        )

    def on_landing(self, ticket: Ticket, in_flight: int, *, now: float) -> None:
        """Forget the flight."""
        self._move(in_flight, now)
        self._flights.pop(ticket.request.id, None)

    def on_first_token(self, ticket: Ticket, service: ServiceTime, *, now: float) -> None:
        """Learn nothing yet."""

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Split the latency into service and waiting."""
        flight = self._flights[reply.ticket.request.id]
        self._done.append(now)
        if len(self._done) > 4096:
            del self._done[:2048]
        self._latency_s += 0.05 * (reply.latency_s - self._latency_s)
        fit = reply.service
        if not reply.output_tokens or fit.replies < 3:
            return
        service_s = fit.predict_s(reply.output_tokens)
        waited_s = reply.latency_s - service_s
        if waited_s <= TOLERANCE * service_s + TOLERANCE_S:
            self._quiet(flight, reply.waiting, now)
            return
        done = self._done
        first = bisect_right(done, flight.sent_at)
        start = flight.sent_at + waited_s
        last = bisect_right(done, start)
        if last < len(done) and done[last] - start < start - done[last - 1]:
            last += 1
        queue = max(1.0, flight.in_flight - max(1, last - first))
        share_s = self._share_now(now) - flight.share
        sharing = max(1.0, service_s / share_s)
        self._waited(flight, queue, sharing, now)

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Shrink."""
        self.window = max(1.0, 0.7 * self.window)

    def _quiet(self, flight: _Flight, waiting: bool, now: float) -> None:
        n = flight.in_flight
        if self._ramping:
            self.window = max(self.window, self._growth * n)
        elif n > self.window:
            self.window = float(n)
            self._probe_wait_s = 1.0

    def _waited(self, flight: _Flight, queue: float, sharing: float, now: float) -> None:
        self._logs.append((queue, sharing))
        del self._logs[:-8]
        self._ramping = False
        estimate = self._pick()
        if estimate < self.window or flight.in_flight > self.window:
            if estimate < self.window:
                self.window = estimate
            if flight.sent_at > self._shrunk_at:
                self._shrunk_at = now
                self._probe_wait_s = min(8.0, 2.0 * self._probe_wait_s)
                self._probe_at = now + self._probe_wait_s

    def _pick(self) -> float:
        queue, sharing = self._logs[-1]
        if len(self._logs) < 4:
            return max(queue, sharing)
        spread = [0.0, 0.0]
        mean = [0.0, 0.0]
        for k in (0, 1):
            values = [math.log(log[k]) for log in self._logs]
            mean[k] = sum(values) / len(values)
            spread[k] = sum((v - mean[k]) ** 2 for v in values)
        k = 0 if spread[0] <= spread[1] else 1
        return self._logs[-1][k]

    def _share_now(self, now: float) -> float:
        if self._in_flight:
            return self._share + (now - self._at) / self._in_flight
        return self._share

    def _move(self, in_flight: int, now: float) -> None:
        self._share = self._share_now(now)
        self._in_flight = in_flight
        self._at = now
