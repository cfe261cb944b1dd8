"""What is known of one account at one upstream: a key's circuit, limits and learnt rate."""

import math
from copy import copy
from dataclasses import dataclass, field

from penstock.core.events import Completed, LimitsSeen, Throttled
from penstock.core.model import Latest
from penstock.core.ticket import Ticket
from penstock.core.upstream.breaker import LONGEST_PAUSE_S, CircuitBreaker
from penstock.core.upstream.rate import Blame, LearntRate, RateRefusal
from penstock.core.upstream.upstream_limits import MODELS_LIMIT, UpstreamLimits

ACCOUNTS_LIMIT = 1024
"""So many keys are told apart at one upstream; of more, the longest unused is forgotten."""
DEAF_S = 300.0
"""For so long no pace is learnt, once refusals have shown that they do not depend on it."""


@dataclass(slots=True)
class Account:
    """One key's standing: where callers bring their own, one key's refusals pause nobody else."""

    breaker: CircuitBreaker
    limits: UpstreamLimits
    rate: LearntRate = field(default_factory=LearntRate)
    served_sent_at: float = -math.inf
    """When the last of what is served was sent."""
    spent: Latest[CircuitBreaker] = field(default_factory=lambda: Latest(MODELS_LIMIT))
    """The circuits of models whose quota is said to be spent, until one of the model is served."""
    _models: Latest[float] = field(default_factory=lambda: Latest(MODELS_LIMIT))
    """When what was refused first was sent, by model; inf once one of that model was served."""
    _in_tokens: bool = False
    _deaf_until: float = -math.inf
    _paced_by: str = ""

    def circuit(self, model: str) -> CircuitBreaker:
        """Return the circuit that a model's requests go by: the account's, or one of its own."""
        return self.breaker if not self.spent else self.spent.get(model, self.breaker)

    def split(self, model: str) -> CircuitBreaker:
        """Return a circuit of the model's own, from now on: its quota is said to be spent.

        Vendors count a day's quota by model, and others of the account may be served. Of a model
        that was answered before it is doubted, as ever; one never answered has nothing to its name.
        """
        if model not in self.spent:
            known = self.breaker
            answered = self._models.get(model) == math.inf
            own = copy(known) if answered else CircuitBreaker(known.max_pause_s, known.outlier)
            self.spent.put(model, own)
        return self.spent[model]

    def paused_to(self, model: str, now: float) -> float:
        """Return when its circuit lets a model's next attempt through; `now` if at once."""
        breaker = self.circuit(model)
        if breaker.half_open or breaker.open_until > now:
            return breaker.send_at(now)
        return now

    def paced_to(self, ticket: Ticket, now: float) -> float:
        """Return when the learnt rate lets an attempt through; `now` if at once."""
        rate = self.rate
        return rate.open_at(self._cost(ticket), now=now) if rate.per_s < math.inf else now

    def unproven(self, ticket: Ticket, upstream: str) -> bool:
        """Return whether nothing has passed yet of what was sent since it was refused."""
        return self.served_sent_at <= ticket.refused_at(upstream) < math.inf

    def due_at(self, ticket: Ticket) -> float:
        """Return when the learnt rate lets an attempt through; -inf where none is learnt."""
        rate = self.rate
        return rate.due_at(self._cost(ticket)) if rate.per_s < math.inf else -math.inf

    def _cost(self, ticket: Ticket) -> float:
        return _tokens(ticket) if self._in_tokens else 1.0

    def sent(self, ticket: Ticket, now: float) -> None:
        """Note an attempt."""
        ticket.paced = self.rate.sent(self._cost(ticket), _tokens(ticket), now=now)
        self.circuit(ticket.request.model).sent(ticket.attempts, now)

    def served(self, ticket: Ticket) -> None:
        """Note a sign of life from an attempt."""
        sent_at, model = ticket.dispatched_at, ticket.request.model
        self.served_sent_at = max(self.served_sent_at, sent_at)
        if ticket.refusals:
            self.rate.served_after_all()
        if self._models.get(model) != math.inf:
            self._models.put(model, math.inf)
        circuit = self.circuit(model)
        circuit.succeeded(sent_at=sent_at)
        if circuit is not self.breaker and not circuit.troubled:
            del self.spent[model]

    def refuses_one_of_many(self, ticket: Ticket, now: float) -> bool:
        """Note a refusal; return whether it says nothing yet of other requests.

        So it is where nothing else is known of the account, and the next one shows whether it
        passes; and where its model was never served, while others are by now. A pace that this
        model's refusals have taught is forgotten then. One that was served says nothing of the
        kind: where models share a limit, one is refused while another passes.
        """
        model = ticket.request.model
        first_at = self._models.get(model)
        if first_at is None:
            is_first = not self._models
            self._models.put(model, ticket.dispatched_at)
            return is_first
        if self.served_sent_at < first_at:
            return False
        if self.rate.per_s < math.inf and self._paced_by == model:
            self._learn_anew(now)
        return True

    def settle(self, ticket: Ticket, output_tokens: int | None, event: Completed) -> None:
        """Replace what an attempt was thought to cost by what its reply used."""
        counted = event.limited_tokens
        if not self.limits.unlimited:
            self.limits.settle(ticket, output_tokens, counted, event.counted_share)
            self.limits.replied(ticket)
        if self._in_tokens and ticket.paced is not None and output_tokens is not None:
            prompt_tokens = ticket.request.prompt_tokens if counted is None else counted
            self.rate.settle(ticket.paced, prompt_tokens + output_tokens)

    def lift(self, now: float) -> None:
        """Close the circuit, and forget the rate that sends were held to."""
        self.breaker.lift(now)
        self.spent.clear()
        self._learn_anew(now)

    def _learn_anew(self, now: float) -> None:
        self.rate = LearntRate(began_at=now)
        self._in_tokens = False

    def learn(self, seen: LimitsSeen, *, now: float) -> None:
        """Adopt limits that the upstream states; they make a learnt rate superfluous."""
        by_model = self._models.get(seen.model) == math.inf
        answered = by_model if seen.model else self.served_sent_at > -math.inf
        self.limits.learn(seen, now=now, answered=answered)
        if self.rate.per_s < math.inf and self.limits.states_requests(self._paced_by):
            self._learn_anew(now)

    def learn_rate(
        self,
        ticket: Ticket,
        event: Throttled,
        believed_s: float | None,
        *,
        lone: bool,
        again: bool,
        now: float,
    ) -> Blame:
        """Return what a refusal for the rate is about, and learn a rate that nobody states from it.

        A limit in requests is looked for first. Where that is refuted, one in tokens; where that
        is refuted too, none for `DEAF_S`.
        """
        model = ticket.request.model
        if self.limits.states_requests(model):
            return Blame.UPSTREAM
        wait_s = event.retry_after_s or 0.0
        if wait_s > LONGEST_PAUSE_S:
            return Blame.UPSTREAM
        if now < self._deaf_until:
            return Blame.REQUEST
        assert ticket.paced is not None
        told = RateRefusal(wait_s, believed_s or 0.0, lone, ticket.own_refusals + 1 if again else 0)
        blame = self.rate.refused(ticket.paced, told, now=now)
        if self.rate.per_s < math.inf:
            self._paced_by = model
        evidence = self.rate.evidence
        if evidence.refuted:
            if not self._in_tokens and evidence.refused_are_dear:
                self.rate = self.rate.in_tokens(_tokens(ticket), now=now)
                self._in_tokens = True
            else:
                self._deaf_until = now + DEAF_S
                self._learn_anew(now)
        elif blame is Blame.PACE:
            self.circuit(model).succeeded(sent_at=now)  # what went before it has passed
        return blame


def _tokens(ticket: Ticket) -> float:
    return ticket.request.prompt_tokens + ticket.cost_tokens
