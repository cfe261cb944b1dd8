"""Stated limits: requests and tokens in any window of a minute."""

import math
from collections import deque

from penstock.core.events import LimitsSeen
from penstock.core.settings import Limits
from penstock.core.ticket import Ticket

WINDOW_S = 60.0


class _Meter:
    """How much was used in the last minute, against one limit; corrections go to their entry."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.used = 0.0
        self._entries: deque[list[float]] = deque()

    def add(self, amount: float, *, now: float) -> list[float]:
        if math.isinf(self.limit):
            return [now, -1.0]
        entry = [now, amount]
        self._entries.append(entry)
        self.used += amount
        return entry

    def correct(self, entry: list[float], amount: float) -> None:
        if entry[1] >= 0:  # still inside the window
            self.used += amount - entry[1]
            entry[1] = amount

    def forget(self, *, now: float) -> None:
        entries = self._entries
        while entries and entries[0][0] <= now - WINDOW_S:
            entry = entries.popleft()
            self.used -= entry[1]
            entry[1] = -1.0
        if not entries:
            self.used = 0.0

    def room_at(self, amount: float, *, now: float) -> float:
        """Return when `amount` fits: `now`, or when enough of the past has left the window.

        A single request above the whole limit is let through when nothing else is in the
        window: the provider's answer then says what the limit really means.
        """
        if math.isinf(self.limit):
            return now
        self.forget(now=now)
        excess = self.used + min(amount, self.limit) - self.limit
        if excess <= 1e-9:
            return now
        for at, used in self._entries:
            excess -= used
            if excess <= 1e-9:
                return at + WINDOW_S
        return now + WINDOW_S


class MinuteLimits:
    """Requests, total, input and output tokens per minute for one upstream.

    Estimates are reserved at dispatch and settled with the real usage, so the token limits are
    exceeded only by under-prediction, and the request limit never in any 60 s.
    """

    def __init__(self, limits: Limits) -> None:
        """Start with an empty past."""
        self._requests = _Meter(limits.requests_per_min)
        self._tokens = _Meter(limits.tokens_per_min)
        self._input = _Meter(limits.input_tokens_per_min)
        self._output = _Meter(limits.output_tokens_per_min)
        self._stated = limits
        self.unlimited = limits == Limits()
        self._reserved: dict[int, tuple[list[float], list[float], list[float]]] = {}

    def room_at(self, ticket: Ticket, *, now: float) -> float:
        """Return the earliest time at which the ticket fits all limits."""
        if self.unlimited:
            return now
        prompt, reply = ticket.request.prompt_tokens, ticket.cost_tokens
        return max(
            self._requests.room_at(1.0, now=now),
            self._tokens.room_at(prompt + reply, now=now),
            self._input.room_at(prompt, now=now),
            self._output.room_at(reply, now=now),
        )

    def reserve(self, ticket: Ticket, *, now: float) -> None:
        """Charge an attempt that is sent now."""
        if self.unlimited:
            return
        prompt, reply = ticket.request.prompt_tokens, ticket.cost_tokens
        self._requests.add(1.0, now=now)
        self._reserved[ticket.request.id] = (
            self._tokens.add(prompt + reply, now=now),
            self._input.add(prompt, now=now),
            self._output.add(reply, now=now),
        )

    def settle(self, ticket: Ticket, output_tokens: int | None, prompt_tokens: int | None) -> None:
        """Replace the reservation by the real usage, where it is known."""
        reserved = self._reserved.pop(ticket.request.id, None)
        if reserved is None:  # sent while nothing was limited
            return
        tokens, input_, output = reserved
        request = ticket.request
        prompt = request.prompt_tokens if prompt_tokens is None else prompt_tokens
        reply = request.cost_tokens if output_tokens is None else output_tokens
        self._tokens.correct(tokens, prompt + reply)
        self._input.correct(input_, prompt)
        self._output.correct(output, reply)

    def learn(self, seen: LimitsSeen, *, now: float) -> None:
        """Adopt limits that the upstream states, never looser than the configured ones."""
        pairs = (
            (self._requests, seen.limit_requests, self._stated.requests_per_min),
            (self._tokens, seen.limit_tokens, self._stated.tokens_per_min),
            (self._input, seen.limit_input_tokens, self._stated.input_tokens_per_min),
            (self._output, seen.limit_output_tokens, self._stated.output_tokens_per_min),
        )
        for meter, limit, stated in pairs:
            if limit is not None and limit > 0:
                self.unlimited = False
                meter.limit = min(limit, stated)
                meter.forget(now=now)
