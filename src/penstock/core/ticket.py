"""A request on its way through the scheduler: one mutable record from arrival to outcome."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from penstock.core.model import Request, bucket_of

REDISPATCH_S = 0.001
"""The least time between two attempts of one request, wherever they go."""


class Stage(Enum):
    """Where a ticket is."""

    DEFERRED = "deferred"
    QUEUED = "queued"
    IN_FLIGHT = "in_flight"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt as the learnt rate saw it: cost, costs and attempts before it, was it slow."""

    at: float
    cost: float
    tokens: float
    units_before: float
    sends_before: int
    slow: bool


@dataclass(slots=True)
class ClassHold:
    """What keeps the head of one class's queue, with the seconds so far by cause.

    Who waits behind the head waits for the same: as soon as that falls, the queue moves. So one
    note for the queue tells the time of everybody in it.

    Attributes:
        cause: what keeps the head now, as in `Why.waits`; empty until it was looked at.
        since: up to when `seconds` are counted, driver seconds.
        seconds: by cause, since the queue was made.
        sent: how many of the class were sent.

    """

    cause: str
    since: float
    seconds: dict[str, float] = field(default_factory=dict)
    sent: int = 0

    def turn(self, cause: str, now: float) -> None:
        """Note what keeps the head from now on."""
        if cause != self.cause:
            self.seconds, self.since = self.seconds_until(now), now
            self.cause = cause

    def seconds_until(self, now: float) -> dict[str, float]:
        """Return the seconds by cause, those that go on included; changes nothing."""
        seconds, cause = self.seconds.copy(), self.cause
        if cause and now > self.since:
            seconds[cause] = seconds.get(cause, 0.0) + now - self.since
        return seconds


@dataclass(slots=True, eq=False)
class Ticket:
    """A request with what the scheduler has made of it so far.

    Attributes:
        service_p50_s: predicted service time at the estimate's median, fixed at arrival.
        service_p90_s: the same at the 90th percentile.
        latest_start: driver seconds after which the p90 no longer fits the deadline.
        start_by: the same for the median, as long as it waits (`core.signals`).
        hopeless_at: driver seconds from which it is refused as hopeless; inf if it is served.
        rung: its predicted bucket, which is its step on the cost ladder.
        cost_tokens: what it is charged until its real usage is known.
        likely_tokens: what must fit a provider's stated rest: the p90, or what a refusal taught.
        passes: how often another request went by while this one did not fit upstream.
        refusals: by upstream that refused it, when, and before when it is not sent there again.
        own_refusals: how many of them were about it alone, as others fared better; it backs off.
        attempts: how often it was sent upstream; `retry_paid` if the next one has been taken
            from the retry budget already; `failed_at` where it broke; `crossed` once the end of a
            connection has crossed it on the way.
        held_by, held_since, waits: what keeps it alone, since when, and seconds so far by cause.
        behind: the queue in which it waits for what keeps the head, since `held_since`;
            `_counted` and `_sent_before` are what that queue had counted by then, and
            `_sent_earlier` is how many were sent in the waits before.
        upstream, dispatched_at, first_token_at, in_flight_at_dispatch: its last attempt;
            `paced` is that attempt as the learnt rate saw it; `expected_s` is its predicted
            service time there. `measured` is False once the driver has stalled while the attempt
            was being sent: its times are then no evidence about the upstream. `lent` is True while
            it goes in the place of the request that it was made inside (`core.nesting`).

    """

    request: Request
    service_p50_s: float
    service_p90_s: float
    latest_start: float
    rung: str
    cost_tokens: float
    likely_tokens: float
    start_by: float = math.nan
    hopeless_at: float = math.inf
    stage: Stage = Stage.QUEUED
    deferrals: int = 0
    passes: int = 0
    attempts: int = 0
    retry_paid: bool = False
    failed_at: tuple[str, ...] = ()
    crossed: bool = False
    refusals: dict[str, tuple[float, float]] | None = None
    own_refusals: int = 0
    held_by: str = ""
    held_since: float = math.nan
    waits: dict[str, float] = field(default_factory=dict)
    behind: ClassHold | None = None
    _counted: dict[str, float] = field(default_factory=dict)
    _sent_before: int = 0
    _sent_earlier: int = 0
    upstream: str = ""
    dispatched_at: float = math.nan
    first_token_at: float = math.nan
    in_flight_at_dispatch: int = 0
    paced: Sent | None = None
    expected_s: float = 0.0
    measured: bool = True
    lent: bool = False

    @property
    def last_at(self) -> float:
        """Before when an attempt beyond the first must have begun."""
        request = self.request
        until = request.deadline if request.deadline < request.expires_at else request.expires_at
        return until if until < request.leaves_at else request.leaves_at

    @property
    def given_up_at(self) -> float:
        """When it is refused if it still waits; inf if it waits for ever."""
        until = self.last_at if self.attempts else self.request.expires_at
        return self.hopeless_at if self.hopeless_at < until else until

    def back_off(self, upstream: str, until: float, *, now: float) -> None:
        """Do not go to this upstream again before `until`: it has refused this request."""
        if self.refusals is None:
            self.refusals = {}
        self.refusals[upstream] = now, until

    def refused_at(self, upstream: str) -> float:
        """Return when this upstream refused it last; inf if it has not."""
        return (self.refusals or {}).get(upstream, (math.inf, 0.0))[0]

    def may_retry_at(self, upstream: str) -> float:
        """Return when it may be sent to this upstream again; it was sent somewhere before.

        Never twice at one instant: where an answer takes no time, that is an endless loop.
        """
        at = self.dispatched_at + REDISPATCH_S
        if self.refusals is None:
            return at
        return max(at, self.refusals.get(upstream, (0.0, at))[1])

    def hold(self, cause: str, now: float) -> None:
        """Note what keeps the request alone from now on; "" ends the wait."""
        self._count(now)
        self.held_by, self.behind = cause, None

    def follow(self, queue: ClassHold, now: float) -> None:
        """Note that it waits from now on for what keeps the head of this queue."""
        self._count(now)
        self.held_by, self.behind = "", queue
        self._counted, self._sent_before = queue.seconds_until(now), queue.sent

    @property
    def cause(self) -> str:
        """What it waits for now, as in `Why.waits`."""
        return self.held_by if self.behind is None else self.behind.cause

    @property
    def sent_meanwhile(self) -> int:
        """How many others of its class were sent while it waited in its queue."""
        now = 0 if self.behind is None else self.behind.sent - self._sent_before
        return self._sent_earlier + now

    def waits_until(self, now: float) -> dict[str, float]:
        """Return the seconds waited by cause, the wait that goes on included."""
        waits = self.waits.copy()
        if now > self.held_since:
            for cause, seconds in self._since(now):
                waits[cause] = waits.get(cause, 0.0) + seconds
        return waits

    def _since(self, now: float) -> Iterator[tuple[str, float]]:
        """Yield the seconds since `held_since`, by cause."""
        if self.behind is None:
            if self.held_by:
                yield self.held_by, now - self.held_since
            return
        for cause, seconds in self.behind.seconds_until(now).items():
            more = seconds - self._counted.get(cause, 0.0)
            if more > 0.0:
                yield cause, more

    def _count(self, now: float) -> None:
        if now > self.held_since:
            self.waits = self.waits_until(now)
        if self.behind is not None:
            self._sent_earlier = self.sent_meanwhile
        self.held_since = now


def ticket_of(request: Request, service_p50_s: float, service_p90_s: float) -> Ticket:
    """Return a fresh ticket for an arrived request."""
    return Ticket(
        request,
        service_p50_s,
        service_p90_s,
        request.deadline - service_p90_s,
        bucket_of(request.estimate.p50_tokens),
        request.estimate.p50_tokens,
        request.estimate.p90_tokens,
    )


def kind_of(ticket: Ticket) -> str:
    """Return what a ticket shares with those that the same limits and pauses hold back."""
    request = ticket.request
    return f"{request.account}\0{request.model}" if request.account else request.model
