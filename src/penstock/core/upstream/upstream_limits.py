"""What one upstream allows: the account's limits, and those of each model."""

import math

from penstock.core.events import LimitsSeen
from penstock.core.settings import Limits, UpstreamSettings
from penstock.core.ticket import Ticket
from penstock.core.upstream.limits import WindowLimits
from penstock.core.upstream.meter import DAY_S

MODELS_LIMIT = 256
"""Limits are learnt for so many models; names are the callers', and memory is bounded."""


class UpstreamLimits:
    """Limits of the account bind all requests, those of a model its own.

    OpenAI, Anthropic, Azure OpenAI and Groq state in every answer what the answer's own model
    may have. Kept in one place, the answers of a small model would throttle a large one. What is
    stated without a model binds the whole account. A request needs room in both. Headers tighten
    what is configured for a model, and that is never forgotten.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        """Start with the configured limits."""
        self._account = WindowLimits(settings.limits)
        self._configured: dict[str, WindowLimits] = {}
        self._models: dict[str, WindowLimits] = {}
        self._other_windows: tuple[WindowLimits, ...] = ()
        self._models_windows: dict[str, tuple[WindowLimits, ...]] = {}
        self.reconfigure(settings, now=0.0)

    def reconfigure(self, settings: UpstreamSettings, *, now: float) -> None:
        """Go by other configured limits; what was used and what headers stated stays."""
        limits, by_model = settings.limits, settings.model_limits
        self._learnt = Limits(charged=limits.charged)
        self._nothing = WindowLimits(self._learnt)
        self._account.reconfigure(limits, now=now)
        self._other_windows = _other_windows(limits, self._other_windows, now)
        known, windows = self._models | self._configured, self._models_windows
        self._configured = {
            model: known.pop(model) if model in known else WindowLimits(each)
            for model, each in by_model.items()
        }
        for model, each in (self._configured | known).items():
            each.reconfigure(by_model.get(model, self._learnt), now=now)
        self._models = {model: each for model, each in known.items() if not each.unlimited}
        self._models_windows = {
            model: _other_windows(each, windows.get(model, ()), now)
            for model, each in by_model.items()
        }
        every = self._account, *self._configured.values(), *self._models.values()
        others = self._other_windows or any(self._models_windows.values())
        self.unlimited = not others and all(each.unlimited for each in every)

    def states_requests(self, model: str) -> bool:
        """Return whether it is known how many requests a minute the model may have."""
        return self._account.states_requests or self._of(model).states_requests

    def room_at(self, ticket: Ticket, keep: float, *, now: float) -> float:
        """Return when to ask again; `now` if the ticket fits all limits.

        `keep` is the share of each limit's pace that the ticket must leave to others.
        """
        model_at = self._model_room_at(ticket, keep, now)
        return max(model_at, self._account_room_at(ticket, keep, now))

    def _account_room_at(self, ticket: Ticket, keep: float, now: float) -> float:
        """Return when the account's limits, of a minute and of other windows, let it go."""
        return _room_at(self._account, self._other_windows, ticket, keep, now)

    def _model_room_at(self, ticket: Ticket, keep: float, now: float) -> float:
        """Return when the limits of the ticket's model, of all windows, let it go."""
        model = ticket.request.model
        return _room_at(self._of(model), self._models_windows.get(model, ()), ticket, keep, now)

    def never_fits(self, ticket: Ticket) -> bool:
        """Return whether the ticket is charged more than any whole window of a limit."""
        return any(each.never_fits(ticket) for each in self._all(ticket))

    def _all(self, ticket: Ticket) -> tuple[WindowLimits, ...]:
        model = ticket.request.model
        others = *self._other_windows, *self._models_windows.get(model, ())
        return self._account, self._of(model), *others

    def only_its_model(self, ticket: Ticket, keep: float, *, now: float) -> bool:
        """Return whether its model's limits hold the ticket back, and longer than the account's."""
        model_at = self._model_room_at(ticket, keep, now)
        return model_at > max(now, self._account_room_at(ticket, keep, now))

    def reserve(self, ticket: Ticket, *, now: float) -> None:
        """Charge an attempt that is sent now."""
        for limits in self._all(ticket):
            limits.reserve(ticket, now=now)

    def settle(
        self,
        ticket: Ticket,
        output_tokens: int | None,
        prompt_tokens: int | None,
        counted_share: float | None = None,
    ) -> None:
        """Replace the reservation by the real usage, where it is known; see `WindowLimits`."""
        for limits in self._all(ticket):
            limits.settle(ticket, output_tokens, prompt_tokens, counted_share)

    def replied(self, ticket: Ticket) -> None:
        """Note a reply: limits that replies no longer state are forgotten."""
        self._account.replied(ticket.dispatched_at)
        self._of(ticket.request.model).replied(ticket.dispatched_at)

    def explains(self, ticket: Ticket, retry_after_s: float | None, *, now: float) -> bool:
        """Return whether the provider's own figures explain why it refused this request."""
        account = self._account.explains(ticket, retry_after_s, now=now)
        model = self._of(ticket.request.model).explains(ticket, retry_after_s, now=now)
        return account or model

    def provoked(self, ticket: Ticket, *, now: float) -> None:
        """Note a refusal for the rate: what passed our limits was too much at once."""
        self._account.provoked(now=now)
        self._of(ticket.request.model).provoked(now=now)

    def learn(self, seen: LimitsSeen, *, now: float, answered: bool = False) -> None:
        """Adopt what the upstream states; of too many models the longest silent is forgotten.

        `answered` says that the model, or the account where none is named, was answered before.
        """
        if not seen.model:
            self._account.learn(seen, now=now, answered=answered)
            self.unlimited = self.unlimited and self._account.unlimited
            return
        configured = self._configured.get(seen.model)
        if configured is not None:
            configured.learn(seen, now=now, answered=answered)
            self.unlimited = self.unlimited and configured.unlimited
            return
        models = self._models
        limits = models.pop(seen.model, None) or WindowLimits(self._learnt)
        limits.learn(seen, now=now, answered=answered)
        if limits.unlimited:
            return
        self.unlimited = False
        models[seen.model] = limits
        if len(models) > MODELS_LIMIT:
            del models[next(iter(models))]

    def _of(self, model: str) -> WindowLimits:
        return self._configured.get(model) or self._models.get(model, self._nothing)


def _other_windows(
    limits: Limits, old: tuple[WindowLimits, ...], now: float
) -> tuple[WindowLimits, ...]:
    """Return what holds beside the limits of a minute, with what the old ones have measured."""
    measured = {each.window_s: each for each in old}
    windows = []
    for window_s, requests, tokens in (
        (1.0, limits.requests_per_s, math.inf),
        (DAY_S, limits.requests_per_day, limits.tokens_per_day),
    ):
        terms = Limits(requests, tokens, charged=limits.charged)
        each = measured.get(window_s) or WindowLimits(terms, window_s)
        each.reconfigure(terms, now=now)
        if not each.unlimited:
            windows.append(each)
    return tuple(windows)


def _room_at(
    minute: WindowLimits, others: tuple[WindowLimits, ...], ticket: Ticket, keep: float, now: float
) -> float:
    """Return when all have room; only a minute is spread out, by a share kept for others."""
    at = minute.room_at(ticket, keep, now=now)
    for each in others:
        at = max(at, each.room_at(ticket, 0.0, now=now))
    return at
