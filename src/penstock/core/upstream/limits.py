"""Stated limits: requests and tokens in any window of a minute."""

import math
from collections import deque
from dataclasses import dataclass

from penstock.core.events import LimitsSeen
from penstock.core.settings import Limits
from penstock.core.ticket import Ticket
from penstock.core.upstream.meter import MINUTE_S, Entry, Meter

COUNTED_REPLIES = 8
"""A prompt counts as the one of so many that counted most: a single miss of the provider's cache is
believed at once, hits only when all were (ours, version 1)."""


@dataclass(slots=True)
class _Reservation:
    prompt: float
    reply: float
    tokens: Entry
    input: Entry
    output: Entry


class WindowLimits:
    """Requests, total, input and output tokens in a window, of an account or of one model there.

    Estimates are reserved at dispatch and settled with the real usage, so the token limits are
    exceeded only by under-prediction, and the request limit never in any window. Where the
    provider charges a reservation (`Limits.charged`), the prompt and the most that the reply may
    have are charged at dispatch, and stay charged.
    """

    def __init__(self, limits: Limits, window_s: float = MINUTE_S) -> None:
        """Start with an empty past; `limits` per minute are taken per `window_s`."""
        self._requests = Meter(limits.requests_per_min, window_s)
        self._tokens = Meter(limits.tokens_per_min, window_s)
        self._input = Meter(limits.input_tokens_per_min, window_s)
        self._output = Meter(limits.output_tokens_per_min, window_s)
        self.window_s = window_s
        self._stated = limits
        self._reserves = limits.charged == "reservation"
        self._reserved: dict[int, _Reservation] = {}
        self._counted_shares = deque((1.0,), COUNTED_REPLIES)
        self._look()

    def reconfigure(self, limits: Limits, *, now: float) -> None:
        """Measure by other configured limits; what was used and what headers stated stays."""
        self._stated = limits
        self._reserves = limits.charged == "reservation"
        self._requests.reconfigure(limits.requests_per_min, now=now)
        self._tokens.reconfigure(limits.tokens_per_min, now=now)
        self._input.reconfigure(limits.input_tokens_per_min, now=now)
        self._output.reconfigure(limits.output_tokens_per_min, now=now)
        self._look()

    def _look(self) -> None:
        self.unlimited = all(math.isinf(meter.limit) for meter in self._meters)

    @property
    def _meters(self) -> tuple[Meter, ...]:
        return self._requests, self._tokens, self._input, self._output

    def _reply_of(self, ticket: Ticket) -> float:
        """Return the output tokens that are charged at dispatch."""
        if not self._reserves:
            return ticket.cost_tokens
        cap = ticket.request.cap_tokens
        return ticket.request.estimate.p90_tokens if cap is None else float(cap)

    def never_fits(self, ticket: Ticket) -> bool:
        """Return whether the reservation is beyond the terms: no wait would help.

        What headers state is not taken so seriously: there the provider's answer decides.
        """
        prompt, reply, terms = ticket.request.prompt_tokens, self._reply_of(ticket), self._stated
        return self._reserves and (
            prompt + reply > terms.tokens_per_min
            or prompt > terms.input_tokens_per_min
            or reply > terms.output_tokens_per_min
        )

    def _input_of(self, ticket: Ticket) -> float:
        """Return how many of a prompt's tokens will count, by what cached ones did lately."""
        if self._reserves:
            return ticket.request.prompt_tokens
        return ticket.request.prompt_tokens * max(self._counted_shares)

    @property
    def states_requests(self) -> bool:
        """True if it is known how many requests a minute may have."""
        return self._requests.limit < math.inf

    def room_at(self, ticket: Ticket, keep: float, *, now: float) -> float:
        """Return when to ask again; `now` if the ticket fits all limits.

        `keep` is the share of each limit's pace that the ticket must leave to others.
        """
        if self.unlimited:
            return now
        if self._reserves and self.never_fits(ticket):
            return math.inf
        prompt, reply = self._input_of(ticket), self._reply_of(ticket)
        likely = max(reply, ticket.likely_tokens) if self._reserves else ticket.likely_tokens
        return max(
            self._requests.room_at(1.0, 1.0, keep, now=now),
            self._tokens.room_at(prompt + reply, prompt + likely, keep, now=now),
            self._input.room_at(prompt, prompt, keep, now=now),
            self._output.room_at(reply, likely, keep, now=now),
        )

    def reserve(self, ticket: Ticket, *, now: float) -> None:
        """Charge an attempt that is sent now."""
        if self.unlimited:
            return
        prompt, reply = self._input_of(ticket), self._reply_of(ticket)
        self._requests.add(1.0, now=now)
        self._reserved[ticket.request.id] = _Reservation(
            prompt,
            reply,
            self._tokens.add(prompt + reply, now=now),
            self._input.add(prompt, now=now),
            self._output.add(reply, now=now),
        )

    def settle(
        self,
        ticket: Ticket,
        output_tokens: int | None,
        prompt_tokens: int | None,
        counted_share: float | None = None,
    ) -> None:
        """Replace the reservation by the real usage that counts, where it is known.

        `counted_share` is which part of the prompt counted; what others reserve goes by it.
        """
        if counted_share is not None:
            self._counted_shares.append(counted_share)
        held = self._reserved.pop(ticket.request.id, None)
        if held is None or self._reserves:  # sent while nothing was limited, or charged for good
            return
        prompt = held.prompt if prompt_tokens is None else prompt_tokens
        reply = held.reply if output_tokens is None else output_tokens
        self._tokens.correct(held.tokens, held.prompt + held.reply, prompt + reply)
        self._input.correct(held.input, held.prompt, prompt)
        self._output.correct(held.output, held.reply, reply)

    def replied(self, sent_at: float) -> None:
        """Note a reply to what was sent then; what it states is told before, by `learn`."""
        for meter in self._meters:
            meter.replied(sent_at)

    def explains(self, ticket: Ticket, retry_after_s: float | None, *, now: float) -> bool:
        """Return whether the provider's own figures explain why it refused this request.

        What is left now and when this request will fit tell what it will cost; where that is
        more than thought, `ticket.likely_tokens` becomes it.
        """
        if retry_after_s is None:
            return False
        prompt = self._input_of(ticket)
        explained = self._requests.said(now=now) < 1.0 or self._input.said(now=now) < prompt
        for meter, more in ((self._tokens, prompt), (self._output, 0)):
            left = meter.said(now=now)
            if math.isinf(left):
                continue
            implied = left + meter.limit / meter.window_s * retry_after_s - more
            ticket.likely_tokens = max(ticket.likely_tokens, implied)
            explained = explained or left < ticket.likely_tokens + more
        return explained

    def provoked(self, *, now: float) -> None:
        """Note a refusal for the rate: what passed our limits was too much at once."""
        for meter in self._meters:
            meter.provoked(now=now)

    def learn(self, seen: LimitsSeen, *, now: float, answered: bool = False) -> None:
        """Adopt limits that the upstream states, never looser than the configured ones.

        `answered` says that there were replies before.
        """
        for meter, limit, left in (
            (self._requests, seen.limit_requests, seen.remaining_requests),
            (self._tokens, seen.limit_tokens, seen.remaining_tokens),
            (self._input, seen.limit_input_tokens, seen.remaining_input_tokens),
            (self._output, seen.limit_output_tokens, seen.remaining_output_tokens),
        ):
            if limit is not None and limit > 0:
                self.unlimited = False
                meter.learn(limit, left, now=now, answered=answered)
