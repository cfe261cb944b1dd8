"""The gate for numbers from outside: what each may be, and what happens beyond its bounds.

A number that the caller or the driver states is refused in words; one that a provider states is
ignored and counted. Every event passes here before anything else looks at it, so no other part of
the core meets a number that is negative where it must not be, infinite, not a number or absurd.
"""

import math
import operator
from dataclasses import replace
from typing import Any

from penstock.core.events import (
    Arrived,
    Completed,
    DriverStalled,
    Event,
    Failed,
    LimitsSeen,
    Throttled,
)
from penstock.core.model import LARGEST_ESTIMATE_TOKENS, Request
from penstock.core.rule import shown
from penstock.errors import ProtocolError

FARTHEST_S = 1e11
"""No time is farther from 0: there a float still tells microseconds apart (and 3,000 years)."""
LARGEST_COUNT = 100_000_000
"""Tokens of one reply or one prompt; the longest contexts hold some ten million."""
LEAST_LIMIT, LARGEST_LIMIT = 1.0, 1e12
"""Of requests or tokens a minute: what is below lets nothing through that the provider serves."""
LONGEST_WAIT_S = 1e9
_LIMITS = ("requests", "tokens", "input_tokens", "output_tokens")
COUNTS = ("output_tokens", "prompt_tokens", "cached_tokens", "counted_input_tokens")
"""The attributes of a usage, and of `Completed`, that count tokens."""


def require_stall(since: float, now: float) -> None:
    """Refuse a stall that began at no time up to now.

    Raises:
        ProtocolError: `since` is not a number, farther than `FARTHEST_S` from 0, or to come.

    """
    if not -FARTHEST_S <= since <= now:
        raise ProtocolError(
            f"since={shown(since)} must be a time up to now ({now!r}): did two clocks get mixed?"
        )


class EventCheck:
    """Lets events pass, without what is impossible in them.

    Attributes:
        ignored: how many numbers of providers were ignored so far.

    """

    __slots__ = ("ignored",)

    def __init__(self) -> None:
        """Start with none ignored."""
        self.ignored = 0

    def checked(self, event: Event, now: float, last: float) -> Event:
        """Return the event, or one like it without the provider's impossible numbers.

        Raises:
            ProtocolError: a number of the caller's or the driver's is impossible, or `now` is no
                time, farther than `FARTHEST_S` from 0 or before `last`, the time of the last event.

        """
        if not last <= now <= FARTHEST_S or now < -FARTHEST_S:
            raise ProtocolError(
                f"now={now!r} is before the last event ({last!r}) or no time at all: "
                "time must not go backwards; did two clocks get mixed?"
            )
        kind = type(event)
        if kind is Arrived:
            _require(event.request, now)  # type: ignore[union-attr]
        elif kind is Completed:
            return self._completed(event)  # type: ignore[arg-type]
        elif kind is Throttled:
            return self._throttled(event)  # type: ignore[arg-type]
        elif kind is Failed:
            _require_jitter(event.jitter)  # type: ignore[union-attr]
        elif kind is DriverStalled:
            require_stall(event.since, now)  # type: ignore[union-attr]
        elif kind is LimitsSeen:
            return self._limits(event)  # type: ignore[arg-type]
        return event

    def _completed(self, event: Completed) -> Completed:
        self.ignored += whole_count(event.ignored) or 0
        if has_sound_counts(event):
            return event
        counts = {name: whole_count(getattr(event, name)) for name in COUNTS}
        self.ignored += sum(
            count is None and getattr(event, name) is not None for name, count in counts.items()
        )
        return replace(event, **counts)  # type: ignore[arg-type]

    def _throttled(self, event: Throttled) -> Throttled:
        _require_jitter(event.jitter)
        wait_s = event.retry_after_s
        if wait_s is None or 0.0 <= wait_s <= LONGEST_WAIT_S:
            return event
        self.ignored += 1
        # A wait that is too long is a long wait; one that is no number is none.
        return replace(event, retry_after_s=LONGEST_WAIT_S if wait_s > LONGEST_WAIT_S else None)

    def _limits(self, event: LimitsSeen) -> LimitsSeen:
        wrong: dict[str, None] = {}
        for name in _LIMITS:
            for stated, least, most in (
                (f"limit_{name}", LEAST_LIMIT, LARGEST_LIMIT),
                (f"remaining_{name}", 0.0, LARGEST_LIMIT),
                (f"reset_{name}_s", 0.0, LONGEST_WAIT_S),
            ):
                value = getattr(event, stated)
                if value is not None and not least <= value <= most:
                    wrong[stated] = None
        if not wrong:
            return event
        self.ignored += len(wrong)
        return replace(event, **wrong)  # type: ignore[arg-type]


def has_sound_counts(usage: Any) -> bool:
    """Return whether each of `COUNTS` is a whole number within bounds, or None."""
    for count in (
        usage.output_tokens, usage.prompt_tokens, usage.cached_tokens, usage.counted_input_tokens,
    ):  # fmt: skip
        if count is not None and (type(count) is not int or not 0 <= count <= LARGEST_COUNT):
            return False
    return True


def whole_count(value: Any) -> int | None:
    """Return a count of tokens as an int, None if it is no possible one; 12.0 is, as numpy's 12."""
    try:
        whole = isinstance(value, float) and value.is_integer()
        count = int(value) if whole else operator.index(value)
    except TypeError:
        return None
    return count if 0 <= count <= LARGEST_COUNT else None


def _require(request: Request, now: float) -> None:
    arrived_at, deadline, expires_at = request.arrived_at, request.deadline, request.expires_at
    estimate = request.estimate
    if not -FARTHEST_S <= arrived_at <= now:
        raise ProtocolError(
            f"request {shown(request.id)}: arrived_at={arrived_at!r} must be a time up to now "
            f"({now!r}): did two clocks get mixed?"
        )
    times = ("deadline", deadline), ("expires_at", expires_at), ("leaves_at", request.leaves_at)
    for name, at in times:
        if not (-FARTHEST_S <= at <= FARTHEST_S or at == math.inf):
            raise ProtocolError(
                f"request {shown(request.id)}: {name}={shown(at)} must be a time in driver "
                f"seconds, at most {FARTHEST_S:g}, or inf for none"
            )
    cap = request.cap_tokens
    if cap is not None and not 0 <= cap <= LARGEST_ESTIMATE_TOKENS:
        raise ProtocolError(
            f"request {shown(request.id)}: cap_tokens={shown(cap)} must be from 0 to "
            f"{LARGEST_ESTIMATE_TOKENS:g}, or None"
        )
    if not (request.inside is None or type(request.inside) is int):
        raise ProtocolError(
            f"request {shown(request.id)}: inside={shown(request.inside)} must be a request's id "
            "or None"
        )
    prompt_tokens = request.prompt_tokens
    if type(prompt_tokens) is not int or not 0 <= prompt_tokens <= LARGEST_ESTIMATE_TOKENS:
        raise ProtocolError(
            f"request {shown(request.id)}: prompt_tokens={shown(prompt_tokens)} must be "
            f"a whole number from 0 to {LARGEST_ESTIMATE_TOKENS:g}: does a caller state it?"
        )
    if not 1.0 <= estimate.p50_tokens <= estimate.p90_tokens <= LARGEST_ESTIMATE_TOKENS:
        raise ProtocolError(  # an estimate is checked when it is made, but is not frozen
            f"request {shown(request.id)}: p50={shown(estimate.p50_tokens)}, "
            f"p90={shown(estimate.p90_tokens)} tokens: 1 <= p50 <= p90 <= "
            f"{LARGEST_ESTIMATE_TOKENS:g} must hold"
        )


def _require_jitter(jitter: float) -> None:
    if not 0.0 <= jitter <= 1.0:
        raise ProtocolError(f"jitter={shown(jitter)} must be in [0, 1]: was it drawn at all?")
