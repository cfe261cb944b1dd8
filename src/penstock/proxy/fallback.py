"""A request that may be sent to another model or tier, as `[[fallbacks]]` allow.

Each leg of its way is an exchange of its own. A leg is left while the request waits, never while an
attempt flies, or when it ends in an error, which is held back until it is known that nobody else is
to be asked. So nothing is sent elsewhere once a byte of a reply has gone to the caller.
"""

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from penstock.calls.estimate import capped, stated
from penstock.core.model import Request
from penstock.core.outlook import Outlook
from penstock.proxy.callers import account_of
from penstock.proxy.config.models import Fallback, FallbackCause
from penstock.proxy.exchange import Exchange
from penstock.proxy.headers import Header, credential
from penstock.proxy.rename import renamed, with_model
from penstock.proxy.reply import Send
from penstock.proxy.request_reader import Body, Prepared
from penstock.proxy.routing import Target, fits
from penstock.wire.too_long import is_too_long

if TYPE_CHECKING:
    from penstock.proxy.sidecar import Sidecar

LOOK_S = 1.0
"""How often a request that waits is looked at, for a pause: a thousand looks take 20 ms."""
LAST_S = 0.1
"""So long before its last moment a request that still waits is as good as late."""
MOST_PLACED = 100
"""With more in hand nobody is told its place when it begins to wait (0.2 ms): it waits for its last
moment."""

_REFUSED: dict[str, FallbackCause] = {
    "refused_quota": "quota",
    "refused_rate": "rate",
    "refused_overload": "overload",
    "refused_slow_first_token": "overload",
    "dial_failed": "down",
    "silent": "down",
}
"""Ends of an attempt after which the request need not wait for a second one."""
_BROKEN: dict[str, FallbackCause] = dict.fromkeys(
    ("server_error", "broken", "not_good", "denied"), "down"
)
_REASONS: dict[str, FallbackCause] = {
    "quota": "quota",
    "rate": "rate",
    "shed": "overload",
    "queue_full": "overload",
    "no_upstream": "down",
    "hopeless": "late",
    "too_large": "context_length",
}
"""By the reason of a refusal of ours."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One stretch of the way: a model and a tier (empty if none is stated), and who serves it."""

    model: str
    tier: str
    target: Target
    rule: Fallback | None = None


def exchange_of(
    sidecar: "Sidecar", prepared: Prepared, headers: list[Header], query: bytes, send: Send
) -> "Exchange | FallingBack":
    """Return who relays a request: most have nowhere else to go, and pay nothing for it."""
    rules = sidecar.fallbacks
    if rules and prepared.may_fall_back and not prepared.refers:
        tier = _tier_of(prepared)
        if tier is not None and any(True for _ in _fitting(rules, prepared.model, tier)):
            return FallingBack(sidecar, prepared, headers, query, send, tier)
    return Exchange(sidecar, prepared, headers, query, send)


def _tier_of(prepared: Prepared) -> str | None:
    """Return the request's `service_tier`, empty if it has none; None if it is no text."""
    tier = (prepared.spec.body or {}).get("service_tier", "")
    return tier if isinstance(tier, str) else None


def _fitting(rules: Sequence[Fallback], model: str, tier: str) -> Iterator[Fallback]:
    for rule in rules:
        if rule.service_tier in (None, tier) and fits(rule.model, model):
            yield rule


class FallingBack:
    """Relays one request, over as many legs as it takes; each model and tier is tried once.

    Where nothing else is left it goes back to where it began, once, and stays there.
    """

    def __init__(
        self,
        sidecar: "Sidecar",
        prepared: Prepared,
        headers: list[Header],
        query: bytes,
        send: Send,
        tier: str,
    ) -> None:
        """Prepare; `run` does it."""
        self._sidecar = sidecar
        self._rules = sidecar.fallbacks
        self._origin = prepared
        self._headers = headers
        self._query = query
        self._send = send
        self._now = sidecar.driver.now
        self._arrived = self._now()
        self._leg = self._first = Leg(
            prepared.model, tier, Target(prepared.spec.model, bool(prepared.spec.account))
        )
        self._seen = {(prepared.model, tier)}
        self._left: list[tuple[Leg, FallbackCause]] = []
        self._exchange = Exchange(sidecar, prepared, headers, query, self._take)
        self._held: list[dict[str, Any]] = []
        self._is_last = self._placed = False
        self._next: tuple[Leg, FallbackCause] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.Handle | None = None

    @property
    def outcome(self) -> str:
        """How it ended, for the metrics."""
        return self._exchange.outcome

    @property
    def status(self) -> int:
        """Of the answer; 0 where there was none."""
        return self._exchange.status

    def told(self) -> str:
        """Return in a line what the request waits for."""
        return self._exchange.told()

    async def run(self) -> None:
        """Relay the request, and answer whatever comes of it."""
        self._task = asyncio.current_task()
        step = self._at_arrival()
        if step is not None:
            self._begin(*step)
        while (step := await self._run_leg()) is not None:
            self._begin(*step)

    # One leg

    async def _run_leg(self) -> tuple[Leg, FallbackCause] | None:
        """Relay by this leg; return the next one and why, or None once the caller has its answer.

        Raises:
            asyncio.CancelledError: the caller has gone.

        """
        self._next = None
        if not self._is_last:
            self._look_soon()
            self._exchange.watch = self._look_soon
        try:
            await self._exchange.run()
        except asyncio.CancelledError:
            assert self._task is not None
            if self._next is None or self._task.uncancel() > 0:
                raise
            return self._next
        finally:
            if self._timer is not None:
                self._timer.cancel()
        cause = self._cause_of_end() if self._held else None
        step = None if cause is None else self._step(cause, None)
        if step is None:
            for message in self._held:
                await self._send(message)
        self._held.clear()
        return step

    def _begin(self, leg: Leg, cause: FallbackCause) -> None:
        """Go on by another leg."""
        sidecar, rule = self._sidecar, leg.rule
        self._left.append((self._leg, cause))
        self._seen.add((leg.model, leg.tier))
        self._is_last, self._placed = leg is self._first, False
        to = "its own model" if rule is None else rule.to_model or rule.to_service_tier or ""
        sidecar.metrics.fallbacks.add("" if rule is None else rule.model, to, cause)
        self._leg = leg
        prepared, headers = self._prepared(leg), self._headers
        if self._origin.body.packed:
            headers = [item for item in headers if item[0] != b"content-encoding"]
        self._exchange = Exchange(sidecar, prepared, headers, self._query, self._take)

    def _prepared(self, leg: Leg) -> Prepared:
        """Return the request as it goes by this leg, with what is left of its time."""
        origin, sidecar = self._origin, self._sidecar
        spec, facts, body = origin.spec, origin.spec.read(), origin.body.plain
        passed_s = self._now() - self._arrived
        if leg.model != origin.model:
            body = renamed(body, {origin.model: leg.model})
        if leg.tier != self._first.tier:
            old = self._first.tier
            body = (
                renamed(body, {old: leg.tier}, key="service_tier")
                if old
                else with_model(body, leg.tier, key="service_tier")
            )
        parsed = None if spec.body is None else {**spec.body, "model": leg.model}
        expires_in_s = math.inf if spec.expires_in_s is None else spec.expires_in_s
        deadline_s = origin.deadline_s - passed_s
        spec = replace(
            spec,
            model=leg.model,
            body=parsed,
            facts=replace(facts, model=leg.model),
            deadline_s=deadline_s,
            expires_in_s=expires_in_s - passed_s,
            account=self._account(leg),
        )
        traffic_class = sidecar.factory.classes[spec.traffic_class or ""]
        spec.prediction = sidecar.predictor.predict(spec, traffic_class)
        spec.model = leg.target.name
        return replace(
            origin, model=leg.model, spec=spec, body=Body(body, body), deadline_s=deadline_s
        )

    # Whether to leave it

    def _at_arrival(self) -> tuple[Leg, FallbackCause] | None:
        """Return where the request goes without having waited, and why."""
        here = self._outlook(self._first)
        if here is None:
            return None
        late = here.service_p90_s > self._left_s()
        return self._first_step([here.cause], here, late=late)

    def _look_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Leave this leg if the request waits and would be better off elsewhere."""
        request = self._exchange.waiting
        here = None if request is None else self._sidecar.driver.outlook(request)
        if request is None or here is None or self._task is None:
            return
        slack_s = request.deadline - self._now() - here.service_p90_s
        late = slack_s < LAST_S or self._turn_in_s(request) > slack_s
        refused = _REFUSED.get(self._exchange.landed)
        self._next = self._first_step([refused, here.cause], here, late=late)
        if self._next is not None:
            self._task.cancel()
            return
        next_s = min(LOOK_S, slack_s - LAST_S) if slack_s > LAST_S else LOOK_S
        self._timer = asyncio.get_running_loop().call_later(next_s, self._look)

    def _turn_in_s(self, request: Request) -> float:
        """Return when the request's turn may come, at the least; it is worked out once a leg."""
        if self._placed:
            return 0.0
        self._placed = True
        driver = self._sidecar.driver
        rules = _fitting(self._rules, self._leg.model, self._leg.tier)
        asked = request.deadline < math.inf and any("late" in rule.when for rule in rules)
        place = driver.place(request.id) if asked and driver.in_hand <= MOST_PLACED else None
        return 0.0 if place is None else place.start_in_s(0.0, now=self._now())

    def _first_step(
        self, causes: Sequence[FallbackCause | None], here: Outlook, *, late: bool
    ) -> tuple[Leg, FallbackCause] | None:
        found: list[FallbackCause | None] = [*causes]
        if late:
            found.append("late")
        for cause in found:
            if cause is not None and (step := self._step(cause, here)) is not None:
                return step
        return None

    def _step(self, cause: FallbackCause, here: Outlook | None) -> tuple[Leg, FallbackCause] | None:
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
        now_at = self._leg
        for rule in _fitting(self._rules, now_at.model, now_at.tier):
            model, tier = rule.to_model or now_at.model, rule.to_service_tier or now_at.tier
            if cause not in rule.when or (model, tier) in self._seen:
                continue
            target = self._sidecar.reader.target_of(self._origin.endpoint, model)
            if target is None:
                continue  # whoever serves it speaks another dialect
            if target.needs_caller_key and credential(self._headers) is None:
                continue
            yield Leg(model, tier, target, rule)
        if now_at is not self._first and cause not in ("late", "context_length"):
            yield self._first

    def _is_better(self, there: Outlook, here: Outlook | None, cause: FallbackCause) -> bool:
        left_s = self._left_s()
        if there.cause or left_s <= 0.0:
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
        tokens = spec.prediction.estimate if spec.tokens is None else stated(spec.tokens)
        estimate = capped(tokens, spec.cap_tokens)
        now, account = self._now(), self._account(leg)
        return self._sidecar.driver.outlook(
            Request(0, spec.traffic_class or "", now, estimate, model=name, account=account)
        )

    def _account(self, leg: Leg) -> str:
        return account_of(self._headers) if leg.target.needs_caller_key else ""

    def _left_s(self) -> float:
        return self._arrived + self._origin.deadline_s - self._now()

    def _cause_of_end(self) -> FallbackCause | None:
        """Return what an error that is held back means; None if it is the caller's to have."""
        exchange, landed = self._exchange, self._exchange.landed
        if exchange.outcome == "caller_error":
            body = b"".join(message.get("body", b"") for message in self._held)
            # A 413 or 429 that is the caller's own: it is above a limit that no wait changes.
            never = exchange.status in (413, 429)
            return "context_length" if never or is_too_long(exchange.status, body) else None
        if exchange.outcome != "upstream_error":
            return _REASONS.get(exchange.outcome)
        if landed == "silent" and not self._origin.repeatable:
            return None  # the provider may be working on it still
        return _REFUSED.get(landed) or _BROKEN.get(landed)

    # What the caller is told

    async def _take(self, message: dict[str, Any]) -> None:
        """Pass on an answer; hold back an error that may not be the last word."""
        if message["type"] == "http.response.start":
            if self._left:
                message["headers"] = [*message["headers"], *self._told_headers()]
            if message["status"] >= 400 and not self._is_last:
                self._held.append(message)
                return
        elif self._held:
            self._held.append(message)
            return
        await self._send(message)

    def _told_headers(self) -> Iterator[Header]:
        leg = self._leg
        yield b"x-penstock-served-model", _shown(leg.model)
        if leg.tier:
            yield b"x-penstock-served-tier", _shown(leg.tier)
        yield b"x-penstock-fallback-from", b", ".join(_of(each) for each, _ in self._left)
        yield b"x-penstock-fallback-reason", ", ".join(why for _, why in self._left).encode()


def _of(leg: Leg) -> bytes:
    return _shown(leg.model) + (b";tier=" + _shown(leg.tier) if leg.tier else b"")


def _shown(name: str) -> bytes:
    """Return a name of the caller's as it can stand in a header."""
    return quote(name, safe="/:@._-+").encode()
