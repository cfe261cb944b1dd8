"""One upstream as the scheduler sees it: its window, limits, health and service times."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from penstock.core.events import Completed, LimitsSeen, RefusalCause, Throttled, WindowMoved
from penstock.core.policy import CapacityPolicy, Reply
from penstock.core.service_time import ServiceTime
from penstock.core.settings import UpstreamSettings
from penstock.core.ticket import Ticket
from penstock.core.upstream.breaker import LONGEST_PAUSE_S, Health
from penstock.core.upstream.outlier import Doubt
from penstock.core.upstream.rate import LearntPace
from penstock.core.upstream.upstream_limits import UpstreamLimits

SLOWDOWN_WEIGHT = 0.1
MODELS_LIMIT = 256
BURST_TOKENS, FASTEST_TOKENS_PER_S = 100_000, 100_000.0
"""No provider generates more in that time, for one request; a usage that says so is ignored."""
LEAST_BACKOFF_S = 0.05
"""No refused request goes back to its refuser sooner, whatever explains the refusal."""
TICK_S = 1e-6
"""Policies divide by latencies, and a coarse clock may show none."""
_NOT_OF_LOAD = (RefusalCause.QUOTA, RefusalCause.DENIED)
NO_OBSTACLE = ("", math.inf)
FULL = ("window", math.inf)


@dataclass(slots=True)
class Upstream:
    """The in-flight ledger of one account, region or provider, and what it taught us."""

    settings: UpstreamSettings
    capacity: CapacityPolicy
    limits: UpstreamLimits
    name: str = field(init=False)
    health: Health = field(default_factory=Health)
    doubt: Doubt = field(default_factory=Doubt)
    has_peers: bool = False
    """Others serve some of its models; without them doubt would change nothing."""
    pace: LearntPace = field(default_factory=LearntPace)
    sent: int = 0
    ignored: int = 0
    """Usages that nobody can have generated in the time."""
    in_flight: dict[int, Ticket] = field(default_factory=dict)
    tokens: float = 0.0
    slowdown: float = 0.0
    window_told: float = field(init=False)
    """The window that the last `WindowMoved` stated."""
    moved: WindowMoved | None = None
    """The last one."""
    _paced_by: str = ""
    _service: dict[str, ServiceTime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the configured name."""
        self.name = self.settings.name
        self.window_told = self.capacity.window

    def serves(self, model: str) -> bool:
        """Say whether this upstream may be asked for the model."""
        models = self.settings.models
        return not models or model in models or any(_fits(each, model) for each in models)

    def service(self, model: str) -> ServiceTime:
        """Return the service-time fit of one model here."""
        fit = self._service.get(model)
        if fit is None:
            if len(self._service) >= MODELS_LIMIT:  # names are the callers': memory is bounded
                return self.service(next(iter(self._service)))
            fit = self._service[model] = ServiceTime(
                self.settings.base_s, self.settings.s_per_token
            )
        return fit

    def services(self) -> dict[str, tuple[float, float]]:
        """Return the fitted (base_s, s_per_token) of each model seen."""
        return {model: (fit.base_s, fit.s_per_token) for model, fit in self._service.items()}

    def obstacle(self, now: float) -> tuple[str, float]:
        """Return what keeps everything out and when time alone removes it.

        The cause is "" when something may go now; the time is inf when only an event can help.
        """
        health = self.health
        if health.paused_until > now or health.exhausted_until > now:
            return "upstream", health.open_at(now)
        flying = len(self.in_flight)
        if health.probation and flying:
            return "upstream", math.inf
        if not self.capacity.has_room(None, flying, self.tokens, now=now):
            return FULL
        if self.pace.per_s < math.inf:
            paced_to = self.pace.open_at(now=now)
            if paced_to > now:
                return "limits", paced_to
        return NO_OBSTACLE

    def obstacle_to(self, ticket: Ticket, keep: float, now: float) -> tuple[str, float]:
        """Return what keeps this ticket out where `obstacle` has just found nothing.

        `keep` is the share of a stated limit's pace that it must leave to others.
        """
        if not self.capacity.has_room(ticket, len(self.in_flight), self.tokens, now=now):
            return FULL
        if not self.limits.unlimited:
            fits_at = self.limits.room_at(ticket, keep, now=now)
            if fits_at > now:
                return "limits", fits_at
        return NO_OBSTACLE

    def finish_s(self, ticket: Ticket) -> float:
        """Return the predicted time from dispatch here to the last token, in seconds."""
        request = ticket.request
        service_s = self.service(request.model).predict_s(request.estimate.p50_tokens)
        return service_s * (1.0 + self.slowdown)

    def depart(self, ticket: Ticket, now: float) -> None:
        """Enter an attempt into the ledger."""
        request = ticket.request
        self.in_flight[request.id] = ticket
        self.tokens += ticket.cost_tokens
        ticket.upstream = self.name
        ticket.dispatched_at = now
        ticket.first_token_at = math.nan
        ticket.attempts += 1
        ticket.in_flight_at_dispatch = flying = len(self.in_flight)
        ticket.sent_before = self.sent
        self.sent += 1
        self.pace.sent(now=now)
        if not self.limits.unlimited:
            self.limits.reserve(ticket, now=now)
        fit = self.service(request.model)
        if self.has_peers:
            self.doubt.sent(ticket, fit.predict_s(request.estimate.p50_tokens), now)
        self.capacity.on_dispatch(ticket, fit, flying, now=now)

    def _land(self, ticket: Ticket, now: float) -> None:
        del self.in_flight[ticket.request.id]
        left = len(self.in_flight)
        self.capacity.on_landing(ticket, left, now=now)
        self.tokens = self.tokens - ticket.cost_tokens if left else 0.0

    def recount(self, flying: Iterable[Ticket]) -> None:
        """Let these and no others be in flight."""
        self.in_flight = {ticket.request.id: ticket for ticket in flying}
        self.tokens = sum((each.cost_tokens for each in self.in_flight.values()), 0.0)

    def abandon(self, ticket: Ticket, *, now: float) -> None:
        """Take an attempt out after something raised in the middle of its handling."""
        if self.in_flight.pop(ticket.request.id, None) is not None:
            self.capacity.on_landing(ticket, len(self.in_flight), now=now)
        self.limits.settle(ticket, None, None)

    def first_token(self, ticket: Ticket, *, now: float) -> None:
        """Note the first token of a reply."""
        if math.isnan(ticket.first_token_at):
            ticket.first_token_at = now
            self.doubt.heard(now)
            self.health.succeeded(sent_at=ticket.dispatched_at)
            fit = self.service(ticket.request.model)
            fit.first.observe(ticket.request.prompt_tokens, now - ticket.dispatched_at)
            self.capacity.on_first_token(ticket, fit, now=now)

    def complete(self, ticket: Ticket, event: Completed, *, waiting: bool, now: float) -> float:
        """Take a finished attempt out; return latency over expectation, nan if unknown."""
        sent_at, output_tokens = ticket.dispatched_at, event.output_tokens
        if output_tokens and output_tokens > BURST_TOKENS + FASTEST_TOKENS_PER_S * (now - sent_at):
            output_tokens = None
            self.ignored += 1
        if not self.limits.unlimited:
            self.limits.settle(ticket, output_tokens, event.limited_tokens, event.counted_share)
        self.health.succeeded(sent_at=sent_at)
        if self.has_peers:
            self.doubt.replied(sent_at, now)
        latency_s = now - sent_at
        fit = self.service(ticket.request.model)
        reply = Reply(
            ticket,
            output_tokens if event.reported else None,
            latency_s if latency_s > TICK_S else TICK_S,
            ticket.first_token_at - sent_at,
            ticket.in_flight_at_dispatch,
            waiting,
            fit,
        )
        self.capacity.on_reply(reply, now=now)
        self._land(ticket, now)
        if not output_tokens or not event.reported:
            return math.nan  # a count guessed from the text would bend the fit
        fit.observe(output_tokens, latency_s)
        ratio = latency_s / max(1e-9, fit.predict_s(output_tokens))
        excess = ratio - 1.0 if ratio > 1.0 else 0.0
        self.slowdown += SLOWDOWN_WEIGHT * (excess - self.slowdown)
        return ratio

    def refuse(self, ticket: Ticket, event: Throttled, *, now: float) -> None:
        """Take a refused attempt out of the ledger and heed the refusal.

        Where the provider's own figures say that this one request was too long for what is left,
        it alone waits; everything else holds up everybody. One that came of an unstated pace says
        nothing about the window.
        """
        rate = event.cause is RefusalCause.RATE
        if event.cause is not RefusalCause.SLOW_FIRST_TOKEN:
            self.doubt.heard(now)
        alone = rate and self.limits.explains(ticket, event.retry_after_s, now=now)
        paced = rate and not alone and self._learn_pace(ticket, event, now=now)
        if event.cause not in _NOT_OF_LOAD and not alone and not paced:
            self.capacity.on_refusal(ticket, event.cause, now=now)
        self._land(ticket, now)
        self.limits.settle(ticket, 0, 0)
        wait_s = max(LEAST_BACKOFF_S, min(event.retry_after_s or 0.0, self.health.max_pause_s))
        ticket.back_off(self.name, now + wait_s)
        if alone:
            return
        self.health.refused(
            event.cause,
            sent_at=ticket.dispatched_at,
            retry_after_s=event.retry_after_s,
            jitter=event.jitter,
            now=now,
        )
        if rate:
            self.limits.provoked(ticket, now=now)

    def learn(self, seen: LimitsSeen, *, now: float) -> None:
        """Adopt limits that the upstream states; they make a learnt pace superfluous."""
        self.limits.learn(seen, now=now)
        if self.pace.per_s < math.inf and self.limits.states_requests(self._paced_by):
            self.pace = LearntPace()

    def _learn_pace(self, ticket: Ticket, event: Throttled, *, now: float) -> bool:
        """Say whether a refusal for the rate came of a pace that nobody states, and learn it."""
        model = ticket.request.model
        if self.limits.states_requests(model):
            return False
        wait_s = max(0.0, event.retry_after_s or 0.0)
        if wait_s > LONGEST_PAUSE_S or not self.pace.refused(ticket.sent_before, wait_s, now=now):
            return False
        self._paced_by = model
        self.health.succeeded(sent_at=now)  # what went before it has passed
        return True

    def fail(self, ticket: Ticket, *, upstream_fault: bool, jitter: float, now: float) -> None:
        """Take a broken attempt out of the ledger."""
        self._land(ticket, now)
        self.limits.settle(ticket, None, None)
        if upstream_fault:
            self.health.failed(sent_at=ticket.dispatched_at, jitter=jitter, now=now)
            self.doubt.broke(ticket.dispatched_at, now)

    def left(self, ticket: Ticket, *, now: float) -> None:
        """Take an attempt out of the ledger whose caller has gone."""
        self._land(ticket, now)
        self.limits.settle(ticket, None, None)
        self.doubt.left(ticket, now)

    def window_moved(self) -> WindowMoved:
        """Return why the window is no longer `window_told`."""
        capacity, before = self.capacity, self.window_told
        self.window_told = capacity.window
        self.moved = WindowMoved(
            self.name, before, capacity.window, capacity.because, capacity.evidence
        )
        return self.moved

    def in_doubt(self, now: float) -> bool:
        """Say whether others should serve, if they can."""
        return self.doubt.look_at <= now and self.doubt.look(self.in_flight.values(), now)

    def sound(self, now: float) -> bool:
        """Say whether nothing is known against it: what has failed elsewhere may come here."""
        return self.health.sound(now) and not self.in_doubt(now)


def _fits(pattern: str, model: str) -> bool:
    """Say whether a name fits a pattern in which `*` stands for any text, and nothing else does.

    Not `fnmatch`, to which `[` and `?` in a model's name would mean something.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return pattern == model
    last = parts.pop()
    at, end = len(first), len(model) - len(last)
    if not (model.startswith(first) and model.endswith(last) and at <= end):
        return False
    for part in parts:
        found = model.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
