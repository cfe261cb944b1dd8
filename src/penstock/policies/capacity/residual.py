"""A window steered by what replies reveal about waiting hidden inside the provider."""

import math
from bisect import bisect_right
from dataclasses import dataclass

from penstock.core.events import RefusalCause
from penstock.core.policy import Reply
from penstock.core.service_time import ServiceTime
from penstock.core.ticket import Ticket

ABSOLUTE_S = 0.01


@dataclass(slots=True)
class _Flight:
    sent_at: float
    in_flight: int
    share: float


class Residual:
    """Second version: every reply bounds the capacity from below and perhaps from above.

    Source:
        Ours.

    """

    def __init__(self, *, start: float = 16, growth: float = 1.5, floor: float = 4) -> None:
        """Start with a guess."""
        self.window = float(start)
        self._growth = growth
        self._floor = floor
        self._ramping = True
        self._confirmed = 0.0
        self._flights: dict[int, _Flight] = {}
        self._done: list[float] = []
        self._share = 0.0  # integral of dt / in flight
        self._in_flight = 0
        self._at = 0.0
        self._probe_at = 0.0
        self._probe_wait_s = 1.0
        self._latency_s = 1.0
        self._samples: list[tuple[float, float]] = []
        self._strikes = 0
        self._last_wait_at = -math.inf

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
        self._flights[ticket.request.id] = _Flight(now, in_flight, self._share)

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
        slop_s = fit.tolerance * service_s + ABSOLUTE_S
        waited_s = reply.latency_s - service_s
        n = flight.in_flight
        mean_n = (now - flight.sent_at) / (self._share_now(now) - flight.share)
        queue_lo = n - self._finished(flight.sent_at, waited_s + slop_s)
        if 2 * n <= self.window or (self._ramping and 2 * n <= self._confirmed):
            fit.observe_quiet(waited_s / service_s)
        if waited_s <= slop_s:
            self._quiet(min(queue_lo, math.ceil(mean_n - 0.5)), now)
            return
        self._strikes += 2 if waited_s > 3.0 * slop_s else 1
        queue = n - max(1, self._finished(flight.sent_at, waited_s))
        sharing = math.ceil(service_s * mean_n / reply.latency_s - 0.1)
        self._waited(flight, max(1, queue), max(1, sharing), now)

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Shrink."""
        self.window = max(1.0, 0.7 * self.window)

    def _finished(self, since: float, span_s: float) -> int:
        """Return how many replies ended in the span, the one nearest to its end included."""
        done = self._done
        first = bisect_right(done, since)
        end = since + span_s
        last = bisect_right(done, end)
        if 0 < last < len(done) and done[last] - end < end - done[last - 1]:
            last += 1
        return max(0, last - first)

    def _quiet(self, level: float, now: float) -> None:
        if level >= self.window:
            self._strikes = 0
        if self._ramping:
            self._confirmed = max(self._confirmed, level)
            c = self._confirmed
            self.window = max(self._floor, c + 2, self._growth * c)
        elif level > self.window:
            self.window = float(level)
            self._probe_wait_s = 1.0
            self._probe_at = now

    def _waited(self, flight: _Flight, queue: float, sharing: float, now: float) -> None:
        self._samples.append((queue, sharing))
        del self._samples[:-8]
        estimate = self._pick()
        if self._strikes < 2:
            return
        self._strikes = 0
        if self._ramping:
            self._ramping = False
            estimate = max(estimate, self._confirmed)
        if estimate < self.window:
            self.window = float(estimate)
        elif flight.in_flight <= self.window:
            return
        if flight.sent_at > self._last_wait_at:
            self._last_wait_at = now
            self._probe_wait_s = min(8.0, 2.0 * self._probe_wait_s)
            self._probe_at = now + self._probe_wait_s

    def _pick(self) -> float:
        samples = self._samples
        queue, sharing = samples[-1]
        if len(samples) < 3:
            return max(queue, sharing)
        spreads = []
        for k in (0, 1):
            logs = [math.log(sample[k]) for sample in samples]
            mean = sum(logs) / len(logs)
            spreads.append(sum((x - mean) ** 2 for x in logs))
        return queue if spreads[0] <= spreads[1] else sharing

    def _share_now(self, now: float) -> float:
        if self._in_flight:
            return self._share + (now - self._at) / self._in_flight
        return self._share

    def _move(self, in_flight: int, now: float) -> None:
        self._share = self._share_now(now)
        self._in_flight = in_flight
        self._at = now
