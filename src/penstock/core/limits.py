"""Stated limits: requests and tokens in any window of a minute."""

from dataclasses import dataclass

from penstock.core.events import LimitsSeen
from penstock.core.meter import Entry, Meter
from penstock.core.settings import Limits
from penstock.core.ticket import Ticket


@dataclass(slots=True)
class _Reservation:
    prompt: float
    reply: float
    tokens: Entry
    input: Entry
    output: Entry


class MinuteLimits:
    """Requests, total, input and output tokens per minute for one upstream.

    Estimates are reserved at dispatch and settled with the real usage, so the token limits are
    exceeded only by under-prediction, and the request limit never in any 60 s.
    """

    def __init__(self, limits: Limits) -> None:
        """Start with an empty past."""
        self._requests = Meter(limits.requests_per_min)
        self._tokens = Meter(limits.tokens_per_min)
        self._input = Meter(limits.input_tokens_per_min)
        self._output = Meter(limits.output_tokens_per_min)
        self._stated = limits
        self.unlimited = limits == Limits()
        self._reserved: dict[int, _Reservation] = {}

    def room_at(self, ticket: Ticket, *, now: float) -> float:
        """Return when to ask again; `now` if the ticket fits all limits."""
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
        self._reserved[ticket.request.id] = _Reservation(
            prompt,
            reply,
            self._tokens.add(prompt + reply, now=now),
            self._input.add(prompt, now=now),
            self._output.add(reply, now=now),
        )

    def settle(self, ticket: Ticket, output_tokens: int | None, prompt_tokens: int | None) -> None:
        """Replace the reservation by the real usage, where it is known."""
        held = self._reserved.pop(ticket.request.id, None)
        if held is None:  # sent while nothing was limited
            return
        prompt = held.prompt if prompt_tokens is None else prompt_tokens
        reply = held.reply if output_tokens is None else output_tokens
        self._tokens.correct(held.tokens, held.prompt + held.reply, prompt + reply)
        self._input.correct(held.input, held.prompt, prompt)
        self._output.correct(held.output, held.reply, reply)

    def provoked(self) -> None:
        """Note a refusal for the rate: what passed our limits was too much at once."""
        for meter in (self._requests, self._tokens, self._input, self._output):
            meter.provoked()

    def learn(self, seen: LimitsSeen, *, now: float) -> None:
        """Adopt limits that the upstream states, never looser than the configured ones."""
        stated = self._stated
        self._adopt(
            self._requests,
            stated.requests_per_min,
            (seen.limit_requests, seen.remaining_requests, seen.reset_requests_s),
            now,
        )
        self._adopt(
            self._tokens,
            stated.tokens_per_min,
            (seen.limit_tokens, seen.remaining_tokens, seen.reset_tokens_s),
            now,
        )
        self._adopt(
            self._input,
            stated.input_tokens_per_min,
            (seen.limit_input_tokens, seen.remaining_input_tokens, seen.reset_input_tokens_s),
            now,
        )
        self._adopt(
            self._output,
            stated.output_tokens_per_min,
            (seen.limit_output_tokens, seen.remaining_output_tokens, seen.reset_output_tokens_s),
            now,
        )

    def _adopt(
        self,
        meter: Meter,
        stated: float,
        said: tuple[float | None, float | None, float | None],
        now: float,
    ) -> None:
        limit, remaining, reset_s = said
        if limit is None or limit <= 0:
            return
        self.unlimited = False
        if stated < limit:  # ours is the tighter: what remains of theirs says nothing
            remaining = None
        meter.learn(min(limit, stated), remaining, reset_s, now)
