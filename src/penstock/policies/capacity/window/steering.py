"""The learnt window: at most as many in flight as the provider serves at once."""

import dataclasses
import math
from collections import deque
from typing import Annotated

from penstock.core.events import RefusalCause
from penstock.core.policy import Reply
from penstock.core.rule import Rule
from penstock.core.signals import LEAST_S, ServiceTime
from penstock.core.ticket import Ticket
from penstock.core.upstream.breaker import CHANCE
from penstock.policies.capacity.window.estimate import Belief, Estimate
from penstock.policies.capacity.window.evidence import Series
from penstock.policies.capacity.window.flights import ExpectedService, Flights, Record
from penstock.policies.capacity.window.probe import Probe, Trial

FIRST_REPLIES, SHARING_REPLIES, WARM_REPLIES = 4, 16, 64
RAMP, REGROWTH, IN_USE = 1.5, 1.25, 0.75
"""A window that has never shrunk grows by half, a later one by a quarter, each time that replies
sent since the last move into a window three quarters in use are back while requests wait."""
REFUSED_RATIO, SERVED_KEPT = 0.7, 16
BESIDE = 0.25
"""Where the provider shares, so many times the window may fly beyond it that are brief: the others
are hardly slower for them, and a place would be long in coming."""
_Window = Annotated[float, Rule(low=1, whole=True, why="for below 1 nothing is ever sent")]
_Tokens = Annotated[float, Rule(low=1, infinite=True, why="for below 1 nothing is ever sent")]


class Posterior:
    """The window is the median of what the provider may serve at once, by all that replies showed.

    docs/explanation/capacity.md has the model and the measurements.

    Attributes:
        window: requests that may be in flight.
        because, evidence: what moved it last, and the figures that this stood on.

    Source:
        Ours; see `penstock.policies.capacity.window.estimate`. Growing by what is confirmed: slow
        start, Jacobson, SIGCOMM 1988.

    """

    def __init__(
        self, *, start: _Window = 16, least: _Window = 1, window_tokens: _Tokens = math.inf
    ) -> None:
        """Start with a guess that holds until the first replies.

        Args:
            start: requests in flight before anything is known.
            least: the window never falls below.
            window_tokens: predicted tokens in flight never exceed this, except for one request.

        """
        self.window = float(max(start, least))
        self.because = "start"
        self.evidence: dict[str, float] = {}
        self._least = float(least)
        self._window_tokens = window_tokens
        self._service = ExpectedService()
        self._flights = Flights()
        self._estimate = Estimate()
        self._probe = Probe()
        self._trial = Trial()
        self._ramping = self._wanted = True
        self._moved_at = self._refused_at = -math.inf
        self._seen = 0
        self._is_shared = False
        self._beyond: set[int] = set()
        self._served: deque[int] = deque(maxlen=SERVED_KEPT)
        self._refused_share = self._usual_share = 0.0
        self._refused_in_a_row = 0

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Return whether one more fits; one always may go."""
        if not in_flight:
            return True
        fits = in_flight < self.window
        if not fits and (
            in_flight < self.window + self._probe.extra or len(self._beyond) < self._beside()
        ):
            fits = ticket is None or self._probe.admits(ticket)
        return fits and (ticket is None or tokens + ticket.cost_tokens <= self._window_tokens)

    def on_dispatch(
        self, ticket: Ticket, service: ServiceTime, in_flight: int, *, now: float
    ) -> None:
        """Remember who flew."""
        self._flights.sent(ticket.request.id, in_flight, now=now)
        if in_flight > self.window:
            self._beyond.add(ticket.request.id)

    def on_landing(self, ticket: Ticket, in_flight: int, *, now: float) -> None:
        """Note that a place is free."""
        self._flights.landed(ticket.request.id, in_flight, now=now)
        self._beyond.discard(ticket.request.id)

    def on_first_token(self, ticket: Ticket, service: ServiceTime, *, now: float) -> None:
        """Learn from the time to the first token: a wait stands out more than in the whole."""
        flight = self._flights.of(ticket.request.id)
        if flight is None:
            return
        tokens = ticket.request.prompt_tokens
        line = self._service.of(ticket.request.model, service).first
        known, expected_s = line.knows(tokens), max(LEAST_S, line.predict_s(tokens))
        line.observe(tokens, now - flight.sent_at)
        if known:
            flight.first_token_at = now
            record = self._flights.record(flight, expected_s, since=flight.sent_at, now=now)
            self._learn(self._estimate.first, record, now)

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Learn from a whole reply, or from what came after its first token."""
        request, tokens = reply.ticket.request, reply.output_tokens
        flight = self._flights.of(request.id)
        if flight is None or not tokens:
            return
        self._wanted = reply.waiting
        self._served.append(flight.in_flight)
        self._refused_share -= self._refused_share / SERVED_KEPT
        self._usual_share = self._refused_share
        self._probe.replied(reply.latency_s)
        line = self._service.of(request.model, reply.service)
        known, expected_s = line.knows(tokens), line.predict_s(tokens)
        faster = self._service.observe(line, tokens, reply.latency_s)
        if not known:
            return
        self._estimate.compare_with(faster)
        kind, since = self._estimate.whole, flight.sent_at
        if not math.isnan(flight.first_token_at):
            kind, since = self._estimate.rest, flight.first_token_at
            expected_s -= line.first.predict_s(request.prompt_tokens)
        if expected_s > LEAST_S:
            self._learn(kind, self._flights.record(flight, expected_s, since=since, now=now), now)

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Shrink, once per flight, if the window was in use and its size is why: not by chance.

        Of late as many were served at once, or fly and have not been refused: then it is no reason.
        Where some are refused at any load, so are now and then the first to fly among so many.
        """
        flight = self._flights.of(ticket.request.id)
        if flight is None:
            return
        self._refused_share += (1.0 - self._refused_share) / SERVED_KEPT
        passed = self._flights.passed(flight, now=now)
        if flight.in_flight <= max(passed, *self._served, 0):
            self._refused_in_a_row = 0
            return
        self._refused_in_a_row += 1
        by_chance = self._usual_share**self._refused_in_a_row >= CHANCE
        if by_chance or flight.sent_at <= self._refused_at:
            return
        self._refused_at = now
        if 2 * flight.in_flight >= self.window:
            self._ramping = False
            self._move(REFUSED_RATIO * self.window, "refused", {"in_flight": flight.in_flight}, now)

    def _beside(self) -> float:
        """Return how many brief requests may fly beyond the window, as their time is shared."""
        return max(1.0, BESIDE * self.window // 1.0) if self._is_shared else 0.0

    def _learn(self, kind: Series, record: Record, now: float) -> None:
        """Learn from a record; of many at once, from one in so many, which tell nearly the same."""
        self._seen += 1
        estimate, n = self._estimate, record.in_flight
        warm = estimate.replies > WARM_REPLIES
        if warm and self._seen % (1 + n // 16):
            return
        estimate.learn(kind, record)
        self._probe.saw(record)
        trial = self._trial
        if kind is not estimate.first:
            limit = trial.limit(record, self.window, shared=self._is_shared, now=now)
            because = "trial" if trial.is_open else "trial_over"
            self._move(limit, because, {"fewest_in_flight": trial.fewest}, now)
        every = max(1 + n // 8, 4 if warm else 1)
        due = estimate.replies >= FIRST_REPLIES and estimate.replies % every == 0
        if due and not trial.is_open:
            self._decide(estimate.belief(), record, now)

    def _decide(self, belief: Belief, record: Record, now: float) -> None:
        """Move the window to what is believed: down at once, up as far as replies confirm it."""
        limit, probe = belief.places, self._probe
        self._is_shared = limit < math.inf and belief.queue_probability < 0.5
        in_use = record.in_flight >= IN_USE * self.window
        if limit == self.window:
            if in_use and probe.is_due():
                probe.open(limit)
            elif probe.lacks_brief():
                self._move(limit + probe.extra, "probe", {}, now)
                probe.beyond = limit
            return
        if limit == probe.beyond < self.window:
            return
        because = "room"
        if limit > self.window:
            if record.sent_at < self._moved_at or not (in_use and self._wanted):
                return
            probe.found_room()
            growth = RAMP if self._ramping else REGROWTH
            limit = min(limit, growth * self.window + 1.0)
        elif limit < self.window:
            because = "queue" if belief.queue_probability >= 0.5 else "sharing"
            if because == "sharing" and self._estimate.replies < SHARING_REPLIES:
                return
            self._ramping = False
        self._move(limit, because, dataclasses.asdict(belief), now)

    def _move(self, limit: float, because: str, evidence: dict[str, float], now: float) -> None:
        window = max(self._least, float(int(limit)))
        if window != self.window:
            self.window, self._moved_at = window, now
            self._probe.end()
            self.because, self.evidence = because, evidence
