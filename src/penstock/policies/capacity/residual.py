"""A window steered by what replies reveal about waiting hidden inside the provider."""

import math
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from statistics import median

from penstock.core.dip import Dip
from penstock.core.events import RefusalCause
from penstock.core.flight_log import Flight, FlightLog
from penstock.core.policy import Reply
from penstock.core.rule import Rule
from penstock.core.service_time import ServiceTime
from penstock.core.shrink_trial import ShrinkTrial
from penstock.core.ticket import Ticket

NOISE_S = 0.01
LEAST_WINDOW, LEAST_STEP, MOST_STEP = 4.0, 2.0, 4.0
STEP_FROM, STEP_SHARE, RAMP_SHARE = 8.0, 0.5, 0.1
"""In the first ramp any class may fly 2 above what is confirmed, from 8 on half of what is above
8 more, up to 4, and at least a tenth ..."""
GROWTH = 1.5
"""... and quick ones half without a bound: a long one's place cannot be taken back."""
LATER_LEAST_STEP, LATER_STEP_SHARE = 2.0, 0.125
"""In later ramps, which set out from a level that once was too high, everybody an eighth."""
PROBE_SHARE = 1.0 / 16.0
FIRST_PROBE_S, LONGEST_PROBE_S, LEAST_LONGEST_S = 1.0, 16.0, 4.0
BRIEF_SHARE = 0.5
ALONE = 1.5
FEW = 1.0
"""Where so few are served at once, one too many doubles everybody's wait: probe with care."""
WIDE_AFTER_S, WIDE_AGAIN_S, WIDE_S = 55.0, 15.0, 5.0
"""Where probes were open for so long (after one that went well, so long) and taught nothing, they
may also use the room kept free: the brief for so long, then for as long all others too."""
PRESSED_S, PATIENT_LATENCIES = 10.0, 4.0
"""... if within the last 10 s somebody who had used up half of its slack was sent; without a
deadline, who had waited four mean latencies."""
STRONG_RATIO = 3.0
REFUSED_RATIO = 0.7
OVERDUE_RATIO, OVERDUE_S = 1.5, 0.1
STREAMED_REPLIES = 8
SAMPLES, SAMPLES_TO_VOTE, VOTE_WEIGHT = 8, 4, 0.25
TIE = 0.02
"""Two models whose estimates scatter alike tell nothing: one too many looks the same to both."""
SURE, RATHER = 0.7, 0.6
SLOW_REPLIES, SLOW_SHARE, FEWER = 4, 0.5, 0.75
"""So many replies decide whether the provider is slower: at least so late still, in a window of at
most so much of what it was before."""
LATENCY_WEIGHT = 0.05
TINY_S = 1e-9
_START = Rule(low=1, whole=True, why="for below 1 nothing is ever sent")
_TOKENS = Rule(low=1, infinite=True, why="for below 1 nothing is ever sent")


class Residual:
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
        self.window = float(int(start))
        self._limit = self.window
        self._window_tokens = window_tokens
        self._log = FlightLog()
        self._latency_s = 1.0
        self._streamed = 0
        # Ramping: nothing has waited yet at the level that is confirmed.
        self._ramping = self._first_ramp = True
        self._confirmed = 0.0
        self._ramp_room = 0.0
        # Probing: one more than the limit now and then.
        self._probing = False
        self._probe_at = 0.0
        self._probe_wait_s = FIRST_PROBE_S
        self._passed_over = False
        self._wide_at = WIDE_AFTER_S
        self._pressed_at = self._brief_at = -math.inf
        self._successes = 0
        # Evidence: what later flights showed outweighs what earlier ones did.
        self._strikes = 0
        self._quiet_sent_at = -math.inf
        self._waited_sent_at = -math.inf
        self._refused_at = -math.inf
        self._due: list[tuple[float, int, float]] = []
        # Does the provider queue (0) or share (1)?
        self._sharing = 0.5
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        # Was it full from the first moment?
        self._dip = Dip()
        self._trial = ShrinkTrial()
        # Drift: replies that are slow at any window are not waiting.
        self._shrunk_at = math.inf
        self._before = self.window
        self._first_excess = 0.0
        self._slow: list[float] = []
        self._shrinking = False  # and nothing quiet since

    # The gate

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Say whether one more fits, or may probe."""
        if ticket is None:
            if self._due and self._due[0][0] <= now:
                self._look_for_overdue(now)
            if not self._ramping and now >= self._probe_at:
                self._open_probe(now)
            self._passed_over = False
            if self._dip.open and in_flight >= max(1.0, self._limit // 2.0):
                return False
            return in_flight < self._most()
        if in_flight and tokens + ticket.cost_tokens > self._window_tokens:
            return False
        wide = self.window > self._limit
        brief = self._is_brief(ticket)
        if in_flight < self._limit:
            # Never with nothing in flight: no event would come to let the request go later.
            kept = wide and in_flight >= max(1.0, self._limit - 1.0)
            return brief or not kept or now >= self._wide_at + WIDE_S
        if in_flight >= self._most() or self._passed_over:
            return False
        # A brief one's turn comes no later inside the provider than here; what it must bear is
        # that all become slower by one. A long one makes whoever comes after it wait as well.
        few = self._limit <= FEW
        slack_s = ticket.latest_start - now
        if wide and slack_s < 0.0:  # late already: where all are, nobody else could ever probe
            nobody_brief = now > self._brief_at + PRESSED_S
            bears = brief or few or (nobody_brief and now >= self._wide_at + WIDE_S)
        elif brief:
            # In front of a single place one more doubles the wait.
            bears = slack_s >= (self._latency_s if few else ticket.service_p50_s) / self._limit
        else:
            bears = not few and not wide and slack_s >= self._latency_s / self._limit
        # Nobody probes past one that cannot bear it: it would wait for the probe's end too.
        self._passed_over = not bears
        return bears

    def _is_brief(self, ticket: Ticket) -> bool:
        return ticket.service_p50_s <= BRIEF_SHARE * self._latency_s

    def _most(self) -> float:
        """Return how many may fly at all, those that ramp or probe included."""
        if self._ramping:
            return self._limit + self._ramp_room
        return self._limit + self._probe_room() if self._probing else self._limit

    def _probe_room(self) -> float:
        return 1.0 + self._limit * PROBE_SHARE // 1.0

    def _open_probe(self, now: float) -> None:
        self._probing = True
        self.window = self._limit
        if now < self._wide_at or now > self._pressed_at + PRESSED_S:
            return
        if now < self._wide_at + 2.0 * WIDE_S:
            # As many as may probe, and one for the room that the allocation keeps free.
            self.window += 1.0 + self._probe_room()
        else:
            self._wide_at = now + WIDE_AFTER_S

    def _set(self, limit: float) -> None:
        self._limit = self.window = max(1.0, float(int(limit)))
        self._probing = False

    def _ramp_from(self, confirmed: float) -> None:
        self._ramping = True
        self._confirmed = confirmed
        if self._first_ramp:
            more = max(0.0, confirmed - STEP_FROM) * STEP_SHARE // 1.0
            step = max(min(MOST_STEP, LEAST_STEP + more), confirmed * RAMP_SHARE // 1.0)
            quick = max(confirmed + LEAST_STEP, GROWTH * confirmed // 1.0)
        else:
            step = max(LATER_LEAST_STEP, confirmed * LATER_STEP_SHARE // 1.0)
            quick = confirmed + step
        self._set(max(LEAST_WINDOW, confirmed + step))
        self._ramp_room = max(0.0, quick - self._limit)

    # What is told

    def on_dispatch(
        self, ticket: Ticket, service: ServiceTime, in_flight: int, *, now: float
    ) -> None:
        """Remember who flew, and by when the reply or its first token should be here."""
        request = ticket.request
        waited_s = now - request.arrived_at
        if waited_s > min(ticket.latest_start - now, PATIENT_LATENCIES * self._latency_s):
            self._pressed_at = now
        if self._is_brief(ticket):
            self._brief_at = now
        self._log.sent(request.id, in_flight, now=now)
        if self._streamed >= STREAMED_REPLIES:
            fit, tokens, times = service.first, float(request.prompt_tokens), 2.0
        else:
            fit, tokens, times = service, request.estimate.p90_tokens, 1.0
        if not fit.knows(tokens):
            return
        span_s = times * fit.predict_s(tokens)
        heappush(self._due, (now + OVERDUE_RATIO * span_s + OVERDUE_S, request.id, now))

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
        expected_s = service.first.predict_s(ticket.request.prompt_tokens)
        self._judge(flight, expected_s, service, whole=False, now=now)

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
            fit.observe_quiet(ratio, mean_n)
        if streamed and excess > fit.tolerance:
            rest_s = service_s - fit.first.predict_s(reply.ticket.request.prompt_tokens)
            slower = (reply.latency_s - reply.first_token_s) / max(TINY_S, rest_s) - 1.0
            self._vote(slower > 0.5 * excess)
        self._judge(flight, service_s, fit, whole=True, now=now)

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
        self, flight: Flight, service_s: float, fit: ServiceTime, *, whole: bool, now: float
    ) -> None:
        log = self._log
        latency_s = max(TINY_S, now - flight.sent_at)
        slop_s = fit.tolerance * service_s + NOISE_S
        late = latency_s - service_s > slop_s
        service_s *= fit.typical
        slop_s -= (fit.typical - 1.0) * service_s / fit.typical
        waited_s = latency_s - service_s
        if not late:
            if whole:
                self._slow.clear()
                self._shrinking = False
            if self._teaches(flight.in_flight) and (whole or self._sharing < RATHER):
                mean_n = log.mean_in_flight(flight, now=now)
                # What ended within the slop may have made room for this one.
                level = flight.in_flight - log.replies_in(flight.sent_at, waited_s + slop_s)
                self._quiet(flight, float(min(level, math.ceil(mean_n - 0.5))))
            return
        if whole and self._is_slower(flight, latency_s / service_s - 1.0, fit, now):
            return
        ended = log.replies_in(flight.sent_at, waited_s, nearest=True)
        queue = max(1.0, float(flight.in_flight - max(1, ended)))
        mean_n = log.mean_in_flight(flight, now=now)
        sharing = max(1.0, float(math.ceil(service_s * mean_n / latency_s - 0.1)))
        if whole:
            self._compare(queue, sharing)
        if self._shrunk_at == math.inf and min(queue, sharing) > self._limit:
            self._set(min(queue, sharing))  # a crowd's first, quiet replies had shown less
        self._strikes += 2 if waited_s > STRONG_RATIO * slop_s else 1
        if self._strikes >= 2 and flight.sent_at >= self._quiet_sent_at:
            self._waited(flight, self._pick(queue, sharing), latency_s / service_s - 1.0, now)

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
            self._probe_at = flight.sent_at
            self._wide_at = flight.sent_at + WIDE_AGAIN_S
            self._probe_wait_s = FIRST_PROBE_S
            self._samples.clear()
            self._successes += 1
            self._set(level)
            if self._successes >= 2:
                self._ramping, self._confirmed, self._ramp_room = True, level, 0.0

    def _waited(self, flight: Flight, estimate: float, excess: float, now: float) -> None:
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
        if flight.sent_at > self._waited_sent_at:
            self._waited_sent_at = flight.sent_at
            longest_s = min(LONGEST_PROBE_S, max(LEAST_LONGEST_S, 4.0 * self._latency_s))
            self._probe_wait_s = min(longest_s, 2.0 * self._probe_wait_s)
        self._probe_at = now + self._probe_wait_s
        self._wide_at = self._probe_at + WIDE_AFTER_S

    def _shrink(self, estimate: float, excess: float, now: float) -> None:
        if not self._shrinking:
            self._shrinking = True
            self._before, self._first_excess = self._limit, excess
        self._shrunk_at = now
        self._set(estimate)

    def _is_slower(self, flight: Flight, excess: float, fit: ServiceTime, now: float) -> bool:
        """Say whether a late reply is no sign of waiting, as a smaller window did not help.

        Of a full provider that shares, replies get faster with the window; halfway between that
        and no faster at all decides. Until enough have come, they do not shrink it further. If it
        is slower the fit starts anew and the window is what it was before.
        """
        if not self._shrinking or flight.sent_at <= self._shrunk_at:
            return False
        if flight.in_flight > self._limit:
            return False
        if self._log.mean_in_flight(flight, now=now) > self._limit:
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
        fit.restart(1.0 + slower)
        self._samples.clear()
        self._strikes = 0
        self._shrunk_at = math.inf
        self._ramp_from(max(self._limit, self._before))
        return True

    def _look_for_noise(self, flight: Flight, n: float, ratio: float, fit: ServiceTime) -> None:
        """Learn the provider's noise where a smaller window made replies no faster."""
        scattered = self._trial.replied(n, self._limit, ratio, flight.sent_at)
        if scattered is None:
            return
        for each_n, each in scattered:
            fit.observe_quiet(each, each_n)
        if self._trial.excess <= fit.tolerance:
            self._strikes = 0
            self._shrinking = False
            self._ramp_from(max(self._limit, self._trial.window))
            self._trial.end()

    def _look_lower(self, n: float, ratio: float, fit: ServiceTime, now: float) -> None:
        """Where replies are faster among half as many, what the line saw was a crowd.

        Only where the provider is known to share: a queue tells its length by itself.
        """
        may_open = not self._ramping and self._sharing > SURE
        gain = self._dip.replied(n, self._limit, ratio, may_open=may_open)
        if gain is not None:
            fit.restart(gain, crowded=True)
            self._samples.clear()
            self._shrink(max(self._limit // 2.0, gain * self._limit), 1.0 / gain - 1.0, now)

    def _look_for_overdue(self, now: float) -> None:
        """Take what should be here and is not for a sign of waiting: replies come too late."""
        while self._due and self._due[0][0] <= now:
            due_at, id_, sent_at = heappop(self._due)
            flight = self._log.get(id_)
            if flight is None or flight.sent_at != sent_at or flight.started:
                continue
            if sent_at < self._quiet_sent_at or sent_at <= self._waited_sent_at:
                continue
            waited_s = (due_at - sent_at - OVERDUE_S) * (1.0 - 1.0 / OVERDUE_RATIO)
            estimate = float(flight.in_flight - self._log.replies_in(sent_at, waited_s) - 1)
            level = self._limit
            if self._ramping:
                level = self._confirmed
                estimate = max(estimate, level)
            if 1.0 <= estimate < self._limit:
                self._ramping = self._first_ramp = False
                excess = waited_s / max(TINY_S, due_at - sent_at - waited_s)
                self._trial.shrunk(level, excess, now)
                self._shrink(estimate, excess, now)
                self._probe_at = max(self._probe_at, now + self._probe_wait_s)

    # Queue or sharing

    def _pick(self, queue: float, sharing: float) -> float:
        if self._sharing > SURE:
            return sharing
        return queue if self._sharing < 1.0 - SURE else max(queue, sharing)

    def _compare(self, queue: float, sharing: float) -> None:
        """Vote for the model whose estimates agree with each other."""
        samples = self._samples
        samples.append((queue, sharing))
        if not self._streamed and len(samples) >= SAMPLES_TO_VOTE:
            queue_spread, sharing_spread = (_spread(each) for each in zip(*samples, strict=True))
            if abs(queue_spread - sharing_spread) > TIE:
                self._vote(sharing_spread < queue_spread)

    def _vote(self, shares: bool) -> None:
        self._sharing += VOTE_WEIGHT * (float(shares) - self._sharing)


def _spread(estimates: Sequence[float]) -> float:
    """Return the sum of squared deviations of the logarithms."""
    logs = [math.log(estimate) for estimate in estimates]
    mean = sum(logs) / len(logs)
    return sum((log - mean) ** 2 for log in logs)
