"""One upstream as the scheduler sees it: its window, its accounts and service times."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from penstock.core.backoff import LEAST_S, REQUEST_BASE_S, REQUEST_CAP_S, backoff_s
from penstock.core.events import Completed, LimitsSeen, RefusalCause, Throttled, WindowMoved
from penstock.core.model import Latest, Request
from penstock.core.policy import CapacityPolicy, Reply
from penstock.core.settings import UpstreamSettings
from penstock.core.signals import ServiceTime
from penstock.core.ticket import Ticket
from penstock.core.upstream.account import ACCOUNTS_LIMIT, Account
from penstock.core.upstream.breaker import MAX_PAUSE_S, OF_A_MODEL, CircuitBreaker
from penstock.core.upstream.outlier import OutlierDetector
from penstock.core.upstream.pinned_window import PinnedWindow
from penstock.core.upstream.rate import TOLD_OFTEN, Blame
from penstock.core.upstream.upstream_limits import UpstreamLimits

SLOWDOWN_WEIGHT = 0.1
MODELS_LIMIT = 256
BURST_TOKENS, FASTEST_TOKENS_PER_S = 100_000, 100_000.0
"""No provider generates more in that time, for one request; a usage that says so is ignored."""
STALL_EDGE_S = 0.05
"""An attempt dispatched so shortly before a stall may not have been sent before it; a reply read so
shortly after one may have come during it. The driver looks for stalls as often."""
TICK_S = 1e-6
"""Policies divide by latencies, and a coarse clock may show none."""
_NOT_OF_LOAD = (RefusalCause.QUOTA, RefusalCause.DENIED)
NO_OBSTACLE = ("", math.inf)
FULL = ("window", math.inf)


@dataclass(slots=True)
class Upstream:
    """The in-flight ledger of one region or provider, what it taught us, and its accounts."""

    settings: UpstreamSettings
    capacity: CapacityPolicy
    max_pause_s: float = MAX_PAUSE_S
    name: str = field(init=False)
    default: Account = field(init=False)
    """The account of requests that name none."""
    outlier: OutlierDetector = field(default_factory=OutlierDetector)
    others: Latest[Account] = field(default_factory=lambda: Latest(ACCOUNTS_LIMIT))
    """The accounts of keys that callers bring."""
    window_told: float = field(init=False)
    """The window that the last `WindowMoved` stated."""
    moved: WindowMoved | None = None
    """The last one."""
    moved_by: str = ""
    """What of an operator's moves the window next: "reload" or "pin_ended"; empty if nothing."""
    paused_until: float = -math.inf
    """The end of an operator's pause."""
    has_peers: bool = False
    """Others serve some of its models; without them nothing is an outlier."""
    unmeasured: int = 0
    """Replies whose times were no evidence, because the driver had stalled."""
    stalled_until: float = -math.inf
    """What the driver reads up to then may have come while it could not act."""
    ignored: int = 0
    """Usages that nobody can have generated in the time."""
    in_flight: dict[int, Ticket] = field(default_factory=dict)
    occupied: int = 0
    """Places in the window that they take: one that goes in its outer call's place takes none."""
    tokens: float = 0.0
    slowdown: float = 0.0
    _service: dict[str, ServiceTime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the configured name."""
        self.name = self.settings.name
        self.default = self._new_account()
        self.window_told = self.capacity.window

    def _new_account(self) -> Account:
        breaker = CircuitBreaker(self.max_pause_s, self.outlier)
        return Account(breaker, UpstreamLimits(self.settings))

    def account(self, name: str) -> Account:
        """Return the account of a key's digest; the default one for ""."""
        if not name:
            return self.default
        account = self.others.get(name) or self._new_account()
        self.others.put(name, account)
        return account

    def circuit(self, request: Request) -> CircuitBreaker:
        """Return the circuit that a request goes by: its account's, or its model's there."""
        return self.account(request.account).circuit(request.model)

    @property
    def unlimited(self) -> bool:
        """True if no limit of any account is known."""
        return not self.others and self.default.limits.unlimited

    def serves(self, model: str) -> bool:
        """Return whether this upstream may be asked for the model."""
        return self.settings.serves(model)

    def reconfigure(
        self,
        settings: UpstreamSettings,
        capacity: CapacityPolicy | None,
        max_pause_s: float,
        now: float,
    ) -> None:
        """Go by these settings from now on; a window policy that is not None is a new one."""
        self.settings = settings
        self.max_pause_s = max_pause_s
        if capacity is not None:
            self.capacity = capacity
            self.moved_by = "reload"
        for account in (self.default, *self.others.values()):
            for breaker in (account.breaker, *account.spent.values()):
                breaker.max_pause_s = max_pause_s
            account.limits.reconfigure(settings, now=now)

    def hold(self, window: float | None, paused_until: float) -> None:
        """Do what an operator's pins say; None lets the policy's own window hold."""
        self.paused_until = paused_until
        policy = self.capacity
        if isinstance(policy, PinnedWindow):
            policy = policy.below
            if window is None and policy.window != self.window_told:
                self.moved_by = "pin_ended"
        self.capacity = policy if window is None else PinnedWindow(policy, window)

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

    def known_service(self, model: str) -> ServiceTime:
        """Return what `service` would return; nothing is kept of a model not seen before."""
        return self._service.get(model) or ServiceTime(
            self.settings.base_s, self.settings.s_per_token
        )

    def known_breaker(self, request: Request) -> CircuitBreaker:
        """Return a request's circuit; a closed one, of which nothing is kept, if none is known."""
        key = request.account
        known = self.others.get(key) if key else self.default
        return (known or self._new_account()).circuit(request.model)

    def services(self) -> dict[str, tuple[float, float]]:
        """Return the fitted (base_s, s_per_token) of each model seen."""
        return {model: (fit.base_s, fit.s_per_token) for model, fit in self._service.items()}

    def obstacle(self, now: float) -> tuple[str, float]:
        """Return what keeps everything out and when time alone removes it.

        The cause is "" when something may go now; the time is inf when only an event can help.
        """
        if self.paused_until > now:
            return "upstream", self.paused_until
        alone = None if self.others else self.default
        if alone is not None:
            paused_to = alone.breaker.send_at(now)
            if paused_to > now:
                return "upstream", paused_to
        if not self.capacity.has_room(None, self.occupied, self.tokens, now=now):
            return FULL
        return NO_OBSTACLE

    def obstacle_to(self, ticket: Ticket, keep: float, now: float) -> tuple[str, float]:
        """Return what keeps this ticket out where `obstacle` has just found nothing.

        `keep` is the share of a stated limit's pace that it must leave to others.
        """
        if not self.capacity.has_room(ticket, self.occupied, self.tokens, now=now):
            return FULL
        if self.others or self.default.spent:  # else `obstacle` has looked at the one there is
            return self._account_obstacle(ticket, keep, now)
        return self._limit_obstacle(self.default, ticket, keep, now)

    def opens_at(self, ticket: Ticket, now: float) -> float:
        """Return when nothing but the window keeps this ticket out; `now` if nothing does."""
        cause, until = self._account_obstacle(ticket, 0.0, now)
        return until if cause else now

    def _account_obstacle(self, ticket: Ticket, keep: float, now: float) -> tuple[str, float]:
        account = self.account(ticket.request.account)
        paused_to = max(account.paused_to(ticket.request.model, now), self.paused_until)
        if paused_to > now:
            return "upstream", paused_to
        return self._limit_obstacle(account, ticket, keep, now)

    def _limit_obstacle(
        self, account: Account, ticket: Ticket, keep: float, now: float
    ) -> tuple[str, float]:
        fits_at = account.paced_to(ticket, now)
        if not account.limits.unlimited:
            fits_at = max(fits_at, account.limits.room_at(ticket, keep, now=now))
        if fits_at > now:
            return "limits", fits_at
        return NO_OBSTACLE

    def holds_only_its_kind(self, ticket: Ticket, keep: float, now: float) -> bool:
        """Return whether others may go that are of another account, or of another model."""
        account = self.account(ticket.request.account)
        paused_to = account.paused_to(ticket.request.model, now)
        if self.others:  # a kind is a model of an account then, and another account may go
            limited_to = account.limits.room_at(ticket, keep, now=now)
            return max(limited_to, paused_to, account.paced_to(ticket, now)) > now
        if paused_to > now:  # a circuit of its model's own: `obstacle` has looked at the other
            return True
        return account.limits.only_its_model(ticket, keep, now=now)

    def finish_s(self, ticket: Ticket) -> float:
        """Return the predicted time from dispatch here to the last token, in seconds."""
        request = ticket.request
        service_s = self.service(request.model).predict_s(request.estimate.p50_tokens)
        return service_s * (1.0 + self.slowdown)

    def depart(self, ticket: Ticket, now: float) -> None:
        """Enter an attempt into the ledger."""
        request = ticket.request
        self.in_flight[request.id] = ticket
        self.occupied += not ticket.lent
        self.tokens += ticket.cost_tokens
        ticket.upstream = self.name
        ticket.dispatched_at = now
        ticket.first_token_at = math.nan
        ticket.measured = True
        ticket.attempts += 1
        ticket.in_flight_at_dispatch = flying = len(self.in_flight)
        account = self.account(request.account) if request.account else self.default
        account.sent(ticket, now)
        if not account.limits.unlimited:
            account.limits.reserve(ticket, now=now)
        fit = self.service(request.model)
        if self.has_peers:
            account.breaker.outlier.sent(ticket, fit.predict_s(request.estimate.p50_tokens), now)
        self.capacity.on_dispatch(ticket, fit, flying, now=now)

    def _land(self, ticket: Ticket, now: float) -> None:
        del self.in_flight[ticket.request.id]
        self._take_back(ticket)
        left = len(self.in_flight)
        self.capacity.on_landing(ticket, left, now=now)
        self.tokens = self.tokens - ticket.cost_tokens if left else 0.0

    def _take_back(self, ticket: Ticket) -> None:
        self.occupied -= not ticket.lent
        ticket.lent = False

    def recount(self, flying: Iterable[Ticket]) -> None:
        """Let these and no others be in flight."""
        self.in_flight = {ticket.request.id: ticket for ticket in flying}
        self.occupied = sum(not ticket.lent for ticket in self.in_flight.values())
        self.tokens = sum((each.cost_tokens for each in self.in_flight.values()), 0.0)

    def abandon(self, ticket: Ticket, *, now: float) -> None:
        """Take an attempt out after something raised in the middle of its handling."""
        if self.in_flight.pop(ticket.request.id, None) is not None:
            self._take_back(ticket)
            self.capacity.on_landing(ticket, len(self.in_flight), now=now)
        self.account(ticket.request.account).limits.settle(ticket, None, None)

    def first_token(self, ticket: Ticket, *, now: float) -> None:
        """Note the first token of a reply."""
        if math.isnan(ticket.first_token_at):
            ticket.first_token_at = now
            account = self.account(ticket.request.account)
            account.breaker.outlier.heard(now)
            account.served(ticket)
            if not self._measured(ticket, now):
                return
            fit = self.service(ticket.request.model)
            fit.first.observe(ticket.request.prompt_tokens, now - ticket.dispatched_at)
            self.capacity.on_first_token(ticket, fit, now=now)

    def complete(self, ticket: Ticket, event: Completed, *, waiting: bool, now: float) -> float:
        """Take a finished attempt out; return latency over expectation, nan if unknown."""
        sent_at, output_tokens = ticket.dispatched_at, event.output_tokens
        if output_tokens and output_tokens > BURST_TOKENS + FASTEST_TOKENS_PER_S * (now - sent_at):
            output_tokens = None
            self.ignored += 1
        key = ticket.request.account
        account = self.account(key) if key else self.default
        account.settle(ticket, output_tokens, event)
        account.served(ticket)
        if self.has_peers or account.breaker.outlier.held:
            account.breaker.outlier.replied(sent_at, now)
        if not self._measured(ticket, now):
            self.unmeasured += 1
            self._land(ticket, now)
            return math.nan
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

        What the refusal is about waits, and nothing else: the request alone, where it can never
        pass, where nothing else is known of the account, where its model was never served while
        others are, where the provider's own figures say that it was too long for what is left, or
        where it is one rate refusal among answers; else the account. One that came of an unstated
        rate says nothing about the window. Where others that were sent since it was refused have
        been served, and it is refused again, it backs off by itself and pauses nobody; where that
        has happened before, it is no evidence of a rate either.
        """
        cause, sent_at = event.cause, ticket.dispatched_at
        account = self.account(ticket.request.account)
        model, limits = ticket.request.model, account.limits
        breaker = account.split(model) if cause is RefusalCause.QUOTA else account.circuit(model)
        if cause is not RefusalCause.SLOW_FIRST_TOKEN:
            breaker.outlier.heard(now)
            flying = (t for t in self.in_flight.values() if self.circuit(t.request) is breaker)
            breaker.heard_refusal(flying, sent_at, now)
        late = cause is RefusalCause.SLOW_FIRST_TOKEN and not self._measured(ticket, now)
        if cause is RefusalCause.REQUEST:
            self._land(ticket, now)
            limits.settle(ticket, 0, 0)
            breaker.released(sent_at, now)
            ticket.back_off(self.name, math.inf, now=now)
            return
        rate = cause is RefusalCause.RATE
        own_wait_s, wait_s = breaker.waits_s(cause, event.retry_after_s, sent_at)
        again = cause in OF_A_MODEL and account.served_sent_at > ticket.refused_at(self.name)
        own = again and (not rate or ticket.own_refusals >= TOLD_OFTEN)
        lone = own or breaker.is_lone(cause, sent_at)
        alone = cause in OF_A_MODEL and account.refuses_one_of_many(ticket, now)
        alone = alone or (rate and limits.explains(ticket, event.retry_after_s, now=now))
        blame = Blame.UPSTREAM
        if rate and (own or not alone):
            blame = account.learn_rate(ticket, event, wait_s, lone=lone, again=again, now=now)
            alone = blame is Blame.REQUEST
        alone = alone or (again and blame is not Blame.PACE)
        paced = blame is Blame.PACE
        if cause not in _NOT_OF_LOAD and not alone and not paced and not late:
            self.capacity.on_refusal(ticket, cause, now=now)
        self._land(ticket, now)
        limits.settle(ticket, 0, 0)
        ticket.own_refusals += alone or again
        until = now + _own_wait_s(ticket.own_refusals, own_wait_s, event.jitter)
        ticket.back_off(self.name, until, now=now)
        if alone or late:
            breaker.released(sent_at, now)
            return
        breaker.refused(
            cause,
            sent_at=sent_at,
            retry_after_s=wait_s,
            jitter=event.jitter,
            lone=lone,
            now=now,
        )
        if rate:
            limits.provoked(ticket, now=now)

    def fail(self, ticket: Ticket, *, upstream_fault: bool, jitter: float, now: float) -> None:
        """Take a broken attempt out of the ledger."""
        self._land(ticket, now)
        account = self.account(ticket.request.account)
        account.limits.settle(ticket, None, None)
        if upstream_fault and self._measured(ticket, now):  # else it timed out while we slept
            self.circuit(ticket.request).failed(
                sent_at=ticket.dispatched_at, jitter=jitter, now=now
            )
        else:
            self.circuit(ticket.request).released(ticket.dispatched_at, now)

    def left(self, ticket: Ticket, *, now: float) -> None:
        """Take an attempt out of the ledger whose caller has gone."""
        self._land(ticket, now)
        account = self.account(ticket.request.account)
        account.limits.settle(ticket, None, None)
        if self._measured(ticket, now):
            account.breaker.outlier.left(ticket, now)
        self.circuit(ticket.request).left(ticket.dispatched_at, now)

    def driver_stalled(self, since: float, now: float) -> None:
        """Take no time that the stall is part of for the upstream's."""
        self.stalled_until = now + STALL_EDGE_S
        for ticket in self.in_flight.values():
            if ticket.dispatched_at >= since - STALL_EDGE_S:
                ticket.measured = False
        self.outlier.stalled(now)

    def _measured(self, ticket: Ticket, now: float) -> bool:
        """Return whether the attempt's time until now is the upstream's alone."""
        return ticket.measured and now > self.stalled_until

    def window_moved(self) -> WindowMoved:
        """Return why the window is no longer `window_told`."""
        capacity, before = self.capacity, self.window_told
        self.window_told = capacity.window
        because = self.moved_by or capacity.because
        self.moved_by = ""
        self.moved = WindowMoved(self.name, before, capacity.window, because, capacity.evidence)
        return self.moved

    def learn(self, seen: LimitsSeen, *, now: float) -> None:
        """Adopt limits that the upstream states to one account."""
        self.account(seen.account).learn(seen, now=now)

    def lift(self, account: str, *, now: float) -> None:
        """Close the circuit of an account, and forget the rate that it was held to."""
        self.account(account).lift(now)

    def is_outlier(self, now: float) -> bool:
        """Return whether others should serve, if they can."""
        outlier = self.outlier
        return outlier.look_at <= now and outlier.look(self.in_flight.values(), now)

    def sound(self, request: Request, now: float) -> bool:
        """Return whether nothing is known against it: what has failed elsewhere may come here."""
        if self.paused_until > now or self.is_outlier(now):
            return False
        return self.circuit(request).sound(now)


def _own_wait_s(own_refusals: int, wait_s: float | None, jitter: float) -> float:
    """Return how long a refused request itself must not come back here."""
    if not own_refusals or (own_refusals == 1 and wait_s is not None):
        return max(LEAST_S, wait_s or 0.0)  # the circuit's back-off is everybody's
    own_s = backoff_s(own_refusals, jitter, base_s=REQUEST_BASE_S, cap_s=REQUEST_CAP_S)
    return max(own_s, wait_s or 0.0)
