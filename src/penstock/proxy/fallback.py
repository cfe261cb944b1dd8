"""A request that may be sent to another model or tier, as `[[fallbacks]]` allow.

Each leg of its way is an exchange of its own. A leg is left while the request waits, never while an
attempt flies, or when it ends in an error, which is held back until it is known that nobody else is
to be asked. So nothing is sent elsewhere once a byte of a reply has gone to the caller.
"""

import asyncio
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from penstock.core.model import Request
from penstock.proxy.config.models import FallbackCause
from penstock.proxy.exchange import Exchange
from penstock.proxy.fallback_legs import LAST_S, Leg, Legs, Step
from penstock.proxy.headers import Header, Send
from penstock.proxy.request_reader import Prepared
from penstock.wire.words import is_too_long

if TYPE_CHECKING:
    from penstock.proxy.sidecar import Sidecar

LOOK_S = 1.0
"""How often a request that waits is looked at, for a pause: a thousand looks take 20 ms."""
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
        self._origin = prepared
        self._headers = headers
        self._query = query
        self._send = send
        self._now = sidecar.driver.now
        self._legs = Legs(sidecar, prepared, headers, tier)
        self._exchange = Exchange(sidecar, prepared, headers, query, self._take)
        self._held: list[dict[str, Any]] = []
        self._placed = False
        self._next: Step | None = None
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
        step = self._legs.step_at_arrival()
        if step is not None:
            self._begin(*step)
        while (step := await self._run_leg()) is not None:
            self._begin(*step)

    # One leg

    async def _run_leg(self) -> Step | None:
        """Relay by this leg; return the next one and why, or None once the caller has its answer.

        Raises:
            asyncio.CancelledError: the caller has gone.

        """
        self._next = None
        if not self._legs.is_last:
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
        step = None if cause is None else self._legs.step(cause, None)
        if step is None:
            for message in self._held:
                await self._send(message)
        self._held.clear()
        return step

    def _begin(self, leg: Leg, cause: FallbackCause) -> None:
        """Go on by another leg."""
        prepared, headers = self._legs.begin(leg, cause), self._headers
        if self._origin.body.packed:
            headers = [item for item in headers if item[0] != b"content-encoding"]
        self._placed = False
        self._exchange = Exchange(self._sidecar, prepared, headers, self._query, self._take)

    # Whether to leave it

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
        self._next = self._legs.first_step([refused, here.cause], here, late=late)
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
        rules = self._legs.rules
        asked = request.deadline < math.inf and any("late" in rule.when for rule in rules)
        place = driver.place(request.id) if asked and driver.in_hand <= MOST_PLACED else None
        return 0.0 if place is None else place.start_in_s(0.0, now=self._now())

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
            if self._legs.left:
                message["headers"] = [*message["headers"], *self._told_headers()]
            if message["status"] >= 400 and not self._legs.is_last:
                self._held.append(message)
                return
        elif self._held:
            self._held.append(message)
            return
        await self._send(message)

    def _told_headers(self) -> Iterator[Header]:
        leg, left = self._legs.now_at, self._legs.left
        yield b"x-penstock-served-model", _shown(leg.model)
        if leg.tier:
            yield b"x-penstock-served-tier", _shown(leg.tier)
        yield b"x-penstock-fallback-from", b", ".join(_named(each) for each, _ in left)
        yield b"x-penstock-fallback-reason", ", ".join(why for _, why in left).encode()


def _named(leg: Leg) -> bytes:
    """Return a leg as callers see it: its model, and its service tier where it has one."""
    return _shown(leg.model) + (b";tier=" + _shown(leg.tier) if leg.tier else b"")


def _shown(name: str) -> bytes:
    """Return a name of the caller's as it can stand in a header."""
    return quote(name, safe="/:@._-+").encode()
