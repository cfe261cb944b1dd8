"""A window steered by what replies reveal about waiting hidden inside the provider."""

import math
from collections import deque
from heapq import heappop, heappush

from penstock.core.events import RefusalCause
from penstock.core.flight_log import Flight, FlightLog
from penstock.core.policy import Reply
from penstock.core.service_time import ServiceTime
from penstock.core.ticket import Ticket

ABSOLUTE_S = 0.01
KNOWN_REPLIES = 3
SAMPLES = 8
OVERDUE_RATIO, OVERDUE_S = 1.5, 0.1


class Residual:
    """Every reply bounds the capacity from below, and from above if it waited.

    Source:
        Ours.

    """

    def __init__(
        self,
        *,
        start: float = 16,
        growth: float = 1.5,
        floor: float = 4,
        step: float = 2,
        base: float = 2,
        frac: float = 4,
        wide: float = 8,
        brief: float = 0.5,
    ) -> None:
        """Start with a guess."""
        self.window = float(start)
        self._limit = float(start)
        self._growth = growth
        self._floor = floor
        self._step = step
        self._base = base
        self._wide_s = wide
        self._brief = brief
        self._frac = frac
        self._ramp_room = 0.0
        self._ramping = True
        self._confirmed = 0.0
        self._log = FlightLog()
        self._due: list[tuple[float, int, float]] = []
        self._probing = False
        self._probe_at = 0.0
        self._probe_wait_s = 1.0
        self._latency_s = 1.0
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._sharing = 0.5
        self._quiet_sent_at = -math.inf
        self._waited_sent_at = -math.inf
        self._refused_at = -math.inf
        self._strikes = 0
        self._streaming = 0
        self._successes = 0

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Say whether one more fits, or may probe."""
        if ticket is None:
            if self._due and self._due[0][0] <= now:
                self._look_for_overdue(now)
            if not self._ramping and now >= self._probe_at:
                self._probing = True
                if now >= self._probe_at + self._wide_s:
                    self.window = self._limit + 1
            return in_flight < self.window + self._room()
        if in_flight < self.window:
            # Never with nothing in flight: no event would come to let the request go later.
            if self.window > self._limit and in_flight > max(0, self._limit - 2):
                return ticket.service_p50_s <= self._brief * self._latency_s
            return True
        if in_flight >= self.window + self._room():
            return False
        return ticket.latest_start - now >= self._latency_s / self._limit

    def _room(self) -> float:
        if self._ramping:
            return self._ramp_room
        return 1 + self._limit // 16 if self._probing else 0

    def on_dispatch(
        self, ticket: Ticket, service: ServiceTime, in_flight: int, *, now: float
    ) -> None:
        """Remember what flew."""
        id_ = ticket.request.id
        self._log.sent(id_, in_flight, now=now)
        if service.replies < KNOWN_REPLIES:
            return
        if self._streaming >= 8:
            span_s = 2.0 * service.first.base_s
        else:
            span_s = service.predict_s(ticket.request.estimate.p90_tokens)
        heappush(self._due, (now + OVERDUE_RATIO * span_s + OVERDUE_S, id_, now))

    def on_landing(self, ticket: Ticket, in_flight: int, *, now: float) -> None:
        """Forget the flight."""
        self._log.landed(ticket.request.id, in_flight, now=now)

    def on_first_token(self, ticket: Ticket, service: ServiceTime, *, now: float) -> None:
        """Take the time to the first token as a reply of its own."""
        flight = self._log.get(ticket.request.id)
        if flight is None:
            return
        flight.started = True
        first = service.first
        if first.count < KNOWN_REPLIES:
            return
        self._judge(flight, first.base_s, now - flight.sent_at, service.tolerance, False, now)

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Split the latency into service and waiting."""
        flight = self._log.get(reply.ticket.request.id)
        self._log.replied(now=now)
        self._latency_s += 0.05 * (reply.latency_s - self._latency_s)
        streamed = not math.isnan(reply.first_token_s)
        self._streaming = self._streaming + 1 if streamed else 0
        fit = reply.service
        if flight is None or not reply.output_tokens or fit.replies < KNOWN_REPLIES:
            return
        service_s = fit.predict_s(reply.output_tokens)
        excess = reply.latency_s / max(1e-9, service_s) - 1.0
        if 2 * flight.in_flight <= (self._confirmed if self._ramping else self._limit):
            fit.observe_quiet(excess)
        if streamed and excess > fit.tolerance:
            rest_s = service_s - fit.first.base_s
            slower = (reply.latency_s - reply.first_token_s) / max(1e-9, rest_s) - 1.0
            self._sharing += 0.25 * (float(slower > 0.5 * excess) - self._sharing)
        self._judge(flight, service_s, reply.latency_s, fit.tolerance, True, now)

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Shrink, once per flight."""
        flight = self._log.get(ticket.request.id)
        if flight is None or flight.sent_at <= self._refused_at:
            return
        self._refused_at = now
        if 2 * flight.in_flight >= self._limit:
            self._set(max(1.0, 0.7 * self._limit), now)
            self._ramping, self._confirmed, self._ramp_room = True, self._limit, 0.0

    def _judge(
        self,
        flight: Flight,
        service_s: float,
        latency_s: float,
        tolerance: float,
        whole: bool,
        now: float,
    ) -> None:
        waited_s = latency_s - service_s
        slop_s = tolerance * service_s + ABSOLUTE_S
        log = self._log
        mean_n = log.mean_in_flight(flight, now=now)
        if waited_s <= slop_s:
            if whole or self._sharing < 0.6:
                level = flight.in_flight - log.replies_in(flight.sent_at, waited_s + slop_s)
                self._quiet(flight, min(level, math.ceil(mean_n - 0.5)), now)
            return
        queue = flight.in_flight - max(1, log.replies_in(flight.sent_at, waited_s, nearest=True))
        sharing = math.ceil(service_s * mean_n / max(1e-9, latency_s) - 0.1)
        self._strikes += 2 if waited_s > 3.0 * slop_s else 1
        self._waited(flight, max(1, queue), max(1, sharing), whole, now)

    def _look_for_overdue(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            due_at, id_, sent_at = heappop(self._due)
            flight = self._log.get(id_)
            if flight is None or flight.sent_at != sent_at or flight.started:
                continue
            waited_s = (due_at - sent_at - OVERDUE_S) * (1.0 - 1.0 / OVERDUE_RATIO)
            estimate = float(flight.in_flight - self._log.replies_in(sent_at, waited_s) - 1)
            if self._ramping:
                estimate = max(estimate, self._confirmed)
            if 1 <= estimate < self._limit and sent_at >= self._quiet_sent_at:
                self._ramping = False
                self._set(estimate, now)
                self._probe_at = max(self._probe_at, now + self._probe_wait_s)

    def _set(self, limit: float, now: float) -> None:
        self._limit = self.window = float(int(limit))
        self._probing = False

    def _quiet(self, flight: Flight, level: float, now: float) -> None:
        if flight.sent_at < self._waited_sent_at:
            return
        if self._ramping:
            self._confirmed = max(self._confirmed, level)
            c = self._confirmed
            base = max(float(self._floor), c + max(self._base, c // self._frac))
            self._set(base, now)
            self._ramp_room = max(0, int(max(c + self._step, self._growth * c)) - base)
        elif level >= self._limit:
            self._strikes = 0
            self._quiet_sent_at = max(self._quiet_sent_at, flight.sent_at)
            if level > self._limit:
                self._set(level, now)
                self._probe_wait_s = 1.0
                self._probe_at = now
                self._samples.clear()
                self._successes += 1
                if self._successes >= 2:
                    self._ramping, self._confirmed, self._ramp_room = True, self._limit, 0.0

    def _waited(
        self, flight: Flight, queue: float, sharing: float, whole: bool, now: float
    ) -> None:
        if whole:
            self._samples.append((queue, sharing))
            self._vote()
        estimate = self._pick(queue, sharing)
        if self._strikes < 2 or flight.sent_at < self._quiet_sent_at:
            return
        self._strikes = 0
        self._successes = 0
        if self._ramping:
            self._ramping = False
            estimate = max(estimate, self._confirmed)
        if estimate < self._limit:
            self._set(estimate, now)
        elif flight.in_flight <= self._limit:
            return
        self._set(self._limit, now)
        if flight.sent_at > self._waited_sent_at:
            self._waited_sent_at = flight.sent_at
            longest_s = min(16.0, max(4.0, 4.0 * self._latency_s))
            self._probe_wait_s = min(longest_s, 2.0 * self._probe_wait_s)
        self._probe_at = now + self._probe_wait_s

    def _pick(self, queue: float, sharing: float) -> float:
        if self._sharing > 0.7:
            return sharing
        if self._sharing < 0.3:
            return queue
        return max(queue, sharing)

    def _vote(self) -> None:
        samples = self._samples
        if self._streaming or len(samples) < 4:
            return
        spreads = []
        for k in (0, 1):
            logs = [math.log(sample[k]) for sample in samples]
            mean = sum(logs) / len(logs)
            spreads.append(sum((x - mean) ** 2 for x in logs))
        self._sharing += 0.25 * (float(spreads[1] < spreads[0]) - self._sharing)
