"""Where a request may go on, by `[[fallbacks]]` and by what the scheduler expects of it there."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penstock.calls.spec import estimate_for
from penstock.core.model import Request
from penstock.core.settings import fits
from penstock.core.snapshot import Outlook
from penstock.proxy.bodies import Body
from penstock.proxy.config.models import Fallback, FallbackCause
from penstock.proxy.headers import Header
from penstock.proxy.request_reader import Prepared
from penstock.proxy.routing import Target, renamed, with_model
from penstock.runtime.accounts import account_of, credential
from penstock.wire import jsonio

if TYPE_CHECKING:
    from penstock.proxy.sidecar import Sidecar

LAST_S = 0.1
"""So long before its last moment a request that still waits is as good as late."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One stretch of the way: a model and a tier (empty if none is stated), and who serves it."""

    model: str
    tier: str
    target: Target
    rule: Fallback | None = None


Step = tuple[Leg, FallbackCause]


def tier_of(prepared: Prepared) -> str | None:
    """Return the request's `service_tier`, empty if it has none; None if it is no text."""
    tier = (prepared.spec.body or {}).get("service_tier", "")
    return tier if isinstance(tier, str) else None


def fitting(rules: Sequence[Fallback], model: str, tier: str) -> Iterator[Fallback]:
    """Yield the rules for a model and a tier, in the file's order."""
    for rule in rules:
        if rule.service_tier in (None, tier) and fits(rule.model, model):
            yield rule


class Legs:
    """The legs of one request's way, of which each model and tier is gone once.

    Where nothing else is left the last one is the first again.

    Attributes:
        first: the model and tier that were asked for.
        now_at: where the request is.
        left: the legs before, each with why it was left.

    """

    def __init__(
        self, sidecar: "Sidecar", prepared: Prepared, headers: list[Header], tier: str
    ) -> None:
        """Begin on the leg that was asked for."""
        self._sidecar = sidecar
        self._rules = sidecar.fallbacks
        self._origin = prepared
        self._headers = headers
        self._now = sidecar.driver.now
        self._arrived = self._now()
        by_caller = bool(prepared.spec.account)
        self.first = Leg(prepared.facts.model, tier, Target(prepared.spec.model, by_caller))
        self.now_at = self.first
        self.left: list[Step] = []
        self._seen = {(prepared.facts.model, tier)}

    @property
    def is_last(self) -> bool:
        """Whether the request is back where it began."""
        return bool(self.left) and self.now_at is self.first

    @property
    def rules(self) -> Iterator[Fallback]:
        """The rules for the leg that the request is on."""
        return fitting(self._rules, self.now_at.model, self.now_at.tier)

    def begin(self, leg: Leg, cause: FallbackCause) -> Prepared:
        """Go on by another leg; return the request as it goes there."""
        rule = leg.rule
        to = "its own model" if rule is None else rule.to_model or rule.to_service_tier or ""
        self._sidecar.metrics.fallbacks.add("" if rule is None else rule.model, to, cause)
        self.left.append((self.now_at, cause))
        self._seen.add((leg.model, leg.tier))
        self.now_at = leg
        return self._prepared(leg)

    def step_at_arrival(self) -> Step | None:
        """Return where the request goes without having waited, and why."""
        here = self._outlook(self.first)
        if here is None:
            return None
        late = here.service_p90_s > self._deadline_in_s()
        return self.first_step([here.cause], here, late=late)

    def first_step(
        self, causes: Sequence[FallbackCause | None], here: Outlook, *, late: bool
    ) -> Step | None:
        """Return the first step that one of the causes opens, lateness being the last of them.

        Args:
            causes: why the request's leg may be left; None where there is no such cause.
            here: what is to be expected here.
            late: whether its deadline is missed here.

        """
        found: list[FallbackCause | None] = [*causes]
        if late:
            found.append("late")
        for cause in found:
            if cause is not None and (step := self.step(cause, here)) is not None:
                return step
        return None

    def step(self, cause: FallbackCause, here: Outlook | None) -> Step | None:
        """Return the first leg that the cause opens and that is better than to stay here.

        Args:
            cause: why this leg may be left.
            here: what is to be expected here; None if this leg has ended in an error.

        """
        for leg in self._open_legs(cause):
            there = self._outlook(leg)
            if there is not None and self._is_better(there, here, cause):
                return leg, cause
        return None

    def _open_legs(self, cause: FallbackCause) -> Iterator[Leg]:
        now_at = self.now_at
        for rule in self.rules:
            model, tier = rule.to_model or now_at.model, rule.to_service_tier or now_at.tier
            if cause not in rule.when or (model, tier) in self._seen:
                continue
            target = self._sidecar.reader.target_of(self._origin.endpoint, model)
            if target is None:
                continue  # whoever serves it speaks another dialect
            if target.needs_caller_key and credential(self._headers) is None:
                continue
            yield Leg(model, tier, target, rule)
        if now_at is not self.first and cause not in ("late", "context_length"):
            yield self.first

    def _is_better(self, there: Outlook, here: Outlook | None, cause: FallbackCause) -> bool:
        left_s = self._deadline_in_s()
        spec = self._origin.spec
        longest_s = min(_or_never(spec.expires_in_s), _or_never(spec.leaves_in_s))
        patience_s = self._arrived + longest_s - self._now()
        if there.cause or min(left_s, patience_s) < LAST_S:
            return False
        if cause == "late":
            return there.done_in_s <= left_s
        if here is None:
            return True
        if there.done_in_s > left_s >= here.done_in_s:
            return False
        return there.start_in_s <= here.start_in_s

    def _outlook(self, leg: Leg) -> Outlook | None:
        spec, name = self._origin.spec, leg.target.name
        assert spec.prediction is not None  # the reader has made it
        estimate = estimate_for(spec, spec.prediction)
        now, account = self._now(), self._account(leg)
        return self._sidecar.driver.outlook(
            Request(0, spec.traffic_class or "", now, estimate, model=name, account=account)
        )

    def _account(self, leg: Leg) -> str:
        return account_of(self._headers) if leg.target.needs_caller_key else ""

    def _deadline_in_s(self) -> float:
        return self._arrived + self._origin.deadline_s - self._now()

    def _prepared(self, leg: Leg) -> Prepared:
        """Return the request as it goes by this leg, with what is left of its time."""
        origin, sidecar = self._origin, self._sidecar
        spec, body = origin.spec, origin.body.plain
        asked, facts = origin.facts.model, replace(origin.facts, model=leg.model)
        passed_s = self._now() - self._arrived
        if leg.model != asked:
            body = renamed(body, {asked: leg.model})
        if leg.tier != self.first.tier:
            old = self.first.tier
            body = (
                renamed(body, {old: leg.tier}, key="service_tier")
                if old
                else with_model(body, leg.tier, key="service_tier")
            )
        deadline_s = origin.deadline_s - passed_s
        spec = replace(
            spec,
            model=leg.model,
            body=jsonio.lenient_object(body),
            facts=facts,
            deadline_s=deadline_s,
            expires_in_s=_or_never(spec.expires_in_s) - passed_s,
            leaves_in_s=_or_never(spec.leaves_in_s) - passed_s,
            account=self._account(leg),
        )
        traffic_class = sidecar.factory.classes[spec.traffic_class or ""]
        spec.prediction = sidecar.predictor.predict(spec, traffic_class)
        spec.model, spec.body = leg.target.name, None  # it is read
        return replace(origin, facts=facts, spec=spec, body=Body(body, body), deadline_s=deadline_s)


def _or_never(span_s: float | None) -> float:
    return math.inf if span_s is None else span_s
