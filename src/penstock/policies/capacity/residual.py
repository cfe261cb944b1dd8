"""A window steered by what replies reveal about waiting hidden inside the provider."""

import math
from collections.abc import Sequence
from statistics import median

from penstock.core.crowd_test import CrowdTest
from penstock.core.dip import Dip
from penstock.core.events import RefusalCause
from penstock.core.flight_log import Flight, FlightLog
from penstock.core.growing_window import LEAST_WINDOW, GrowingWindow
from penstock.core.noise import FIRST_TOLERANCE, Noise
from penstock.core.overdue import Overdue
from penstock.core.policy import Reply
from penstock.core.rule import Rule
from penstock.core.service_time import ServiceTime
from penstock.core.shrink_trial import ShrinkTrial
from penstock.core.ticket import Ticket
from penstock.core.waiting_model import WaitingModel

NOISE_S = 0.01
ALONE = 1.5
STRONG_RATIO = 3.0
REFUSED_RATIO = 0.7
STREAMED_REPLIES = 8
CHANCES, LEAST_ABOVE = 8, 3
"""The noise is learnt from so many replies at least, so many of them among more than are served."""
QUEUES, RATHER = 0.3, 0.6
SLOW_REPLIES, SLOW_SHARE, FEWER = 4, 0.5, 0.75
"""So many replies decide whether the provider is slower: at least so late still, in a window of at
most so much of what it was before."""
LATENCY_WEIGHT = 0.05
TINY_S = 1e-9
_START = Rule(low=1, whole=True, why="for below 1 nothing is ever sent")
_TOKENS = Rule(low=1, infinite=True, why="for below 1 nothing is ever sent")


class Residual(GrowingWindow):
    """Every reply bounds the capacity from below, and from above if it waited.

    A reply's real length gives its service time, the rest of its latency is hidden waiting; how
    many replies were completed before it must have started gives how many the provider serves
    at once. docs/explanation/capacity.md derives the formulas and shows the measurements.

    Source:
        Ours. Growing by what is confirmed: slow start, Jacobson, SIGCOMM 1988. The number in
        service as rate times service time: Little, Operations Research 9(3), 1961; BBR,
        Cardwell et al., CACM 60(2), 2017, uses it on bytes.

    """

    def __init__(self, *, start: float = 16, window_tokens: float = math.inf) -> None:
        """Start with a guess that holds until the first replies.

        Args:
            start: requests in flight before anything is known.
            window_tokens: predicted tokens in flight never exceed this, except for one request.

        Raises:
            ValueError: below 1 nothing is ever sent, and half a request cannot fly.

        """
        _START.require(start=start)
        _TOKENS.require(window_tokens=window_tokens)
        super().__init__(start)
        self._window_tokens = window_tokens
        self._log = FlightLog()
        self._streamed = 0
        self._successes = 0
        # Evidence: what later flights showed outweighs what earlier ones did.
        self._strikes = 0
        self._quiet_sent_at = -math.inf
        self._waited_sent_at = -math.inf
        self._refused_at = -math.inf
        self._overdue = Overdue()
        self._regain_from: tuple[bool, bool, float, float] | None = None
        self._crowds = (CrowdTest(), CrowdTest())
        # Does the provider queue or share?
        self._model = WaitingModel()
        self._places = 0.0
        # Was it full from the first moment?
        self._dip = Dip()
        self._trial = ShrinkTrial()
        # Drift: replies that are slow at any window are not waiting.
        self._shrunk_at = math.inf
        self._before = self.window
        self._first_excess = 0.0
        self._slow: list[float] = []
        self._shrinking = False  # and nothing quiet since

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Say whether one more fits, or may probe."""
        if ticket is not None:
            if in_flight and tokens + ticket.cost_tokens > self._window_tokens:
                return False
            return self.admits(ticket, in_flight, now=now)
        if self._overdue.next_at <= now:
            self._look_for_overdue(now)
        if not self.is_open(in_flight, now=now):
            return False
        return not self._dip.open or in_flight < max(1.0, self._limit // 2.0)

    # What is told

    def on_dispatch(
        self, ticket: Ticket, service: ServiceTime, in_flight: int, *, now: float
    ) -> None:
        """Remember who flew, and by when the reply or its first token should be here."""
        request = ticket.request
        self._sent(ticket, now=now)
        self._log.sent(request.id, in_flight, now=now)
        if self._streamed >= STREAMED_REPLIES:
            fit, tokens, times = service.first, float(request.prompt_tokens), 2.0
        else:
            fit, tokens, times = service, request.estimate.p90_tokens, 1.0
        if fit.knows(tokens):
            self._overdue.sent(request.id, times * fit.predict_s(tokens), now=now)

    def on_landing(self, ticket: Ticket, in_flight: int, *, now: float) -> None:
        """Forget the flight."""
        self._log.landed(ticket.request.id, in_flight, now=now)

    def on_first_token(self, ticket: Ticket, service: ServiceTime, *, now: float) -> None:
        """Judge the time to the first token like a reply: it shows a queue much earlier."""
        flight = self._log.get(ticket.request.id)
        if flight is None:
            return
        flight.started = True
        if not service.first.knows(ticket.request.prompt_tokens):
            return
        expected_s = max(TINY_S, service.first.predict_s(ticket.request.prompt_tokens))
        mean_n = self._log.mean_in_flight(flight, now=now)
        if self._had_no_reason_to_wait(flight, mean_n):
            service.first.noise.observe((now - flight.sent_at) / expected_s, mean_n)
        flight.first_excess = (now - flight.sent_at) / expected_s - 1.0
        flight.first_slop = service.first.noise.tolerance + NOISE_S / expected_s
        self._judge(flight, expected_s, mean_n, service, whole=False, now=now)

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Split the latency into service and waiting."""
        flight = self._log.get(reply.ticket.request.id)
        self._log.replied(now=now)
        self._latency_s += LATENCY_WEIGHT * (reply.latency_s - self._latency_s)
        streamed = not math.isnan(reply.first_token_s)
        self._streamed = self._streamed + 1 if streamed else 0
        fit = reply.service
        if flight is None or not reply.output_tokens or not fit.knows(reply.output_tokens):
            return
        service_s = max(TINY_S, fit.predict_s(reply.output_tokens))
        ratio = reply.latency_s / service_s
        excess = ratio - 1.0
        mean_n = self._log.mean_in_flight(flight, now=now)
        n = mean_n if mean_n > flight.in_flight else float(flight.in_flight)
        self._look_lower(n, ratio, fit, now)
        self._look_for_noise(flight, n, ratio, fit)
        if self._had_no_reason_to_wait(flight, mean_n):
            fit.noise.observe(ratio, mean_n)
        if streamed and excess > fit.noise.tolerance:
            rest_s = service_s - fit.first.predict_s(reply.ticket.request.prompt_tokens)
            slower = (reply.latency_s - reply.first_token_s) / max(TINY_S, rest_s) - 1.0
            if flight.first_excess > flight.first_slop:
                self._model.vote(slower > 0.5 * flight.first_excess)
            elif slower > max(flight.first_slop, 2.0 * flight.first_excess):
                return  # it started at once: the more there are the slower is each, that is all
        self._judge(flight, service_s, mean_n, fit, whole=True, now=now)

    def _had_no_reason_to_wait(self, flight: Flight, mean_n: float) -> bool:
        """Say whether it flew alone, or was sent into a window less than half in use."""
        if 2 * flight.in_flight <= (self._confirmed if self._ramping else self._limit):
            return True
        return flight.in_flight == 1 and mean_n <= ALONE

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Shrink, once per flight and only if the window was in use: a lone probe tells nothing."""
        flight = self._log.get(ticket.request.id)
        if flight is None or flight.sent_at <= self._refused_at:
            return
        self._refused_at = now
        if 2 * flight.in_flight >= self._limit:
            self._ramping = True
            self._set(REFUSED_RATIO * self._limit)
            self._confirmed, self._ramp_room = self._limit, 0.0

    # The method

    def _judge(
        self,
        flight: Flight,
        service_s: float,
        mean_n: float,
        fit: ServiceTime,
        *,
        whole: bool,
        now: float,
    ) -> None:
        latency_s = max(TINY_S, now - flight.sent_at)
        ratio = latency_s / service_s
        noise = fit.noise if whole else fit.first.noise
        slop_s = noise.tolerance * service_s + NOISE_S
        late = latency_s - service_s > slop_s
        if flight.overdue and whole:
            self._was_overdue(late)
        service_s *= noise.typical
        slop_s -= (noise.typical - 1.0) * service_s / noise.typical
        if not late:
            if whole:
                self._slow.clear()
                self._shrinking = False
                self._model.saw(flight, mean_n, service_s, latency_s)
            teaches = self._teaches(flight.in_flight) and (whole or self._model.sharing < RATHER)
            if teaches or not noise.is_known:
                level = self._level(flight, mean_n, latency_s - service_s, slop_s, service_s, noise)
                self._crowds[whole].saw(level, ratio)
                if teaches:
                    self._quiet(flight, level)
            return
        excess = latency_s / service_s - 1.0
        if whole and self._is_slower(flight, excess, mean_n, fit):
            return
        capacity = self._capacity(flight, mean_n, service_s, latency_s, whole=whole)
        n = max(mean_n, float(flight.in_flight))
        if not noise.is_known and self._is_chance(n, ratio, capacity, noise, whole):
            return
        self._strikes += 2 if latency_s - service_s > STRONG_RATIO * slop_s else 1
        if self._strikes >= 2 and flight.sent_at >= self._quiet_sent_at:
            self._waited(flight, capacity, excess, now)

    def _level(
        self,
        flight: Flight,
        mean_n: float,
        waited_s: float,
        slop_s: float,
        service_s: float,
        noise: Noise,
    ) -> float:
        """Return how many are served at once at least, as this one did not wait."""
        # What ended within the slop may have made room for this one.
        span_s = waited_s + slop_s
        if noise.is_rather_known:
            span_s = max(0.0, waited_s) + min(slop_s, FIRST_TOLERANCE * service_s + NOISE_S)
        ended = self._log.replies_in(flight.sent_at, span_s)
        return float(min(flight.in_flight - ended, math.ceil(mean_n - 0.5)))

    def _capacity(
        self, flight: Flight, mean_n: float, service_s: float, latency_s: float, *, whole: bool
    ) -> float:
        """Return how many are served at once, as this one waited."""
        ended = self._log.replies_in(flight.sent_at, latency_s - service_s, nearest=True)
        places = max(1.0, float(flight.in_flight - max(1, ended)))
        # Which reply made room is a guess: the one before bears witness too.
        queue, self._places = max(places, self._places), places
        sharing = max(1.0, float(math.ceil(service_s * mean_n / latency_s - 0.1)))
        if whole:
            self._model.saw(flight, mean_n, service_s, latency_s, queue, sharing)
            if not self._streamed:
                self._model.compare(self._log)
        if self._shrunk_at == math.inf and min(queue, sharing) > self._limit:
            self._set(min(queue, sharing))  # a crowd's first, quiet replies had shown less
        return self._model.capacity(queue, sharing, self._limit)

    def _is_chance(
        self, n: float, ratio: float, capacity: float, noise: Noise, whole: bool
    ) -> bool:
        """Say whether a late one was late by chance, while little is known of the noise."""
        crowd = self._crowds[whole]
        crowd.saw(n, ratio)
        if crowd.shows(capacity):
            quiet = [each for each in crowd.seen() if each[0] <= capacity]
            if len(quiet) >= CHANCES and self._model.sharing < QUEUES:
                crowd.restart()
                for each_n, each in quiet:
                    noise.observe(each, each_n)
            return False
        seen = crowd.seen()
        if len(seen) >= CHANCES and sum(each > capacity for each, _ in seen) >= LEAST_ABOVE:
            crowd.restart()
            self._learn(seen, noise)
        return True

    def _teaches(self, in_flight: int) -> bool:
        """Say whether a quiet reply from so few could change anything."""
        if self._ramping:
            return in_flight > self._confirmed or not self._ramp_room
        return in_flight >= self._limit

    def _quiet(self, flight: Flight, level: float) -> None:
        if flight.sent_at < self._waited_sent_at:
            return
        if self._ramping:
            self._ramp_from(max(self._confirmed, level))
            return
        if level < self._limit:
            return
        self._strikes = 0
        self._quiet_sent_at = max(self._quiet_sent_at, flight.sent_at)
        if level > self._limit:
            self._grew(at=flight.sent_at)
            self._model.restart()
            self._successes += 1
            self._set(level)
            if self._successes >= 2:
                self._ramping, self._confirmed, self._ramp_room = True, level, 0.0

    def _waited(self, flight: Flight, estimate: float, excess: float, now: float) -> None:
        self._regain_from = None
        self._strikes = self._successes = 0
        level = self._confirmed if self._ramping else self._limit
        if self._ramping:
            self._ramping = self._first_ramp = False
            estimate = max(estimate, self._confirmed)
        if estimate < self._limit:
            self._trial.shrunk(level, excess, now)
            self._shrink(estimate, excess, now)
        elif flight.in_flight <= self._limit:
            return
        self._set(self._limit)
        self._probe_later(now=now, failed=flight.sent_at > self._waited_sent_at)
        self._waited_sent_at = max(self._waited_sent_at, flight.sent_at)

    def _shrink(self, estimate: float, excess: float, now: float) -> None:
        if not self._shrinking:
            self._shrinking = True
            self._before, self._first_excess = self._limit, excess
        self._shrunk_at = now
        self._set(estimate)

    def _is_slower(self, flight: Flight, excess: float, mean_n: float, fit: ServiceTime) -> bool:
        """Say whether a late reply is no sign of waiting, as a smaller window did not help.

        Of a full provider that shares, replies get faster with the window; halfway between that
        and no faster at all decides. Until enough have come, they do not shrink it further. If it
        is slower the fit starts anew and the window is what it was before.
        """
        if not self._shrinking or flight.sent_at <= self._shrunk_at:
            return False
        if flight.in_flight > self._limit:
            return False
        if mean_n > self._limit:
            return False  # others that probed beside it may have made it slow
        fewer = self._limit / self._before
        if fewer > FEWER:
            return False
        self._slow.append(excess)
        if len(self._slow) < SLOW_REPLIES:
            return self._limit >= LEAST_WINDOW
        slower = median(self._slow)
        self._slow.clear()
        halfway = (1.0 + self._first_excess) * (1.0 + fewer) / 2.0 - 1.0
        if slower < max(SLOW_SHARE * self._first_excess, halfway):
            return False
        self._shrinking = False
        self._start_anew(fit, 1.0 + slower)
        self._strikes = 0
        self._shrunk_at = math.inf
        self._ramp_from(max(self._limit, self._before))
        return True

    def _look_for_noise(self, flight: Flight, n: float, ratio: float, fit: ServiceTime) -> None:
        """Learn the provider's noise where a smaller window made replies no faster."""
        scattered = self._trial.replied(n, self._limit, ratio, flight.sent_at)
        if scattered is not None:
            self._learn(scattered, fit.noise)

    def _learn(self, scattered: Sequence[tuple[float, float]], noise: Noise) -> None:
        """Take n and ratio of each for chance, and give back what the window lost to it."""
        for n, ratio in scattered:
            noise.observe(ratio, n)
        if self._trial.is_open and self._trial.excess <= noise.tolerance:
            self._strikes = 0
            self._shrinking = False
            self._ramp_from(max(self._limit, self._trial.window))
            self._trial.end()

    def _look_lower(self, n: float, ratio: float, fit: ServiceTime, now: float) -> None:
        """Where replies are faster among half as many, what the line saw was a crowd.

        Only where the provider is known to share: a queue tells its length by itself.
        """
        may_open = not self._ramping and self._model.is_sharing
        gain = self._dip.replied(n, self._limit, ratio, may_open=may_open)
        if gain is not None:
            self._start_anew(fit, gain, crowded=True)
            self._shrink(max(self._limit // 2.0, gain * self._limit), 1.0 / gain - 1.0, now)

    def _was_overdue(self, late: bool) -> None:
        """Learn from an overdue reply that is here: did it wait, or was it only long?"""
        self._overdue.ended(waited=late)
        before, self._regain_from = self._regain_from, None
        if before is None or late or self._shrunk_at == math.inf:
            return
        ramping, first, confirmed, level = before
        if ramping:
            self._first_ramp = first
            self._ramp_from(max(confirmed, self._limit))
        elif level > self._limit:
            self._set(level)

    def _look_for_overdue(self, now: float) -> None:
        """Take what should be here and is not for a sign of waiting: replies come too late."""
        while self._overdue.next_at <= now:
            id_, sent_at, expected_s, waited_s = self._overdue.take()
            flight = self._log.get(id_)
            if flight is None or flight.sent_at != sent_at or flight.started:
                continue
            if sent_at < self._quiet_sent_at or sent_at <= self._waited_sent_at:
                continue
            flight.overdue = True
            estimate = float(flight.in_flight - self._log.replies_in(sent_at, waited_s) - 1)
            level = self._limit
            if self._ramping:
                level = self._confirmed
                estimate = max(estimate, level)
            if 1.0 <= estimate < self._limit:
                if self._regain_from is None:
                    self._regain_from = (self._ramping, self._first_ramp, self._confirmed, level)
                self._ramping = self._first_ramp = False
                excess = waited_s / max(TINY_S, expected_s)
                self._trial.shrunk(level, excess, now)
                self._shrink(estimate, excess, now)
                self._probe_at = max(self._probe_at, now + self._probe_wait_s)

    def _start_anew(self, fit: ServiceTime, scale: float, *, crowded: bool = False) -> None:
        """Start the line anew, and whatever was judged by it."""
        fit.restart(scale, crowded=crowded)
        self._model.restart()
        for crowd in self._crowds:
            crowd.restart()
