"""Adaptive deficit round robin: turns by weight, and room kept for the class that comes next.

The accounts of deficit round robin are here too, for the policies that build on them.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Annotated

from penstock.core.model import TrafficClass
from penstock.core.rule import Rule
from penstock.core.signals import ClassDemand, Signals
from penstock.core.ticket import Ticket

CREDIT_QUANTA, DEBT_QUANTA = 16.0, 256.0
"""4,096 tokens of credit, a long reply, and 65,536 of debt at the default quantum."""
Quantum = Annotated[float, Rule(low=1e-3, high=1e9, why="or no class gets a turn")]


class Deficits:
    """What each class may still spend, in output tokens, topped up in rounds.

    A round gives every waiting class `quantum_tokens` times its weight. Instead of walking the
    rounds one by one, the number of rounds until some head is affordable is computed, so a
    choice costs O(classes) whatever the requests' sizes.

    Source:
        Shreedhar & Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", IEEE/ACM ToN
        4(3), 1996.

    """

    def __init__(self, quantum_tokens: float) -> None:
        """Start with nothing owed."""
        self.quantum_tokens = quantum_tokens
        self.tokens: dict[str, float] = {}

    def affordable(self, name: str, head: Ticket) -> bool:
        """Return whether the class can pay for its head."""
        return self.tokens.get(name, 0.0) >= head.cost_tokens

    def top_up(
        self, heads: Mapping[str, Ticket], weights: Mapping[str, float], signals: Signals
    ) -> None:
        """Give whole rounds to all heads until at least one is affordable.

        Unspent credit of classes that wait for nothing is taken first, as in the source; debts
        stay.
        """
        for name, tokens in self.tokens.items():
            if tokens > 0 and not signals.classes[name].waiting:
                self.tokens[name] = 0.0
        rounds: float = math.inf
        first = ""
        for name, head in heads.items():
            missing = head.cost_tokens - self.tokens.get(name, 0.0)
            needed = math.ceil(missing / (self.quantum_tokens * weights[name]))
            if needed < rounds or (needed == rounds and name < first):
                rounds, first = needed, name
        if rounds > 0:
            for name in heads:
                grant = rounds * self.quantum_tokens * weights[name]
                self.tokens[name] = self.tokens.get(name, 0.0) + grant
            # The sum may round to just below the cost, and then nobody could go.
            self.tokens[first] = max(self.tokens[first], heads[first].cost_tokens)

    def settle(self, traffic_class: str, excess_tokens: float) -> None:
        """Correct the charge by what the reply really cost."""
        self.charge(traffic_class, excess_tokens)

    def forget_debts(self) -> None:
        """Nobody contends: forget credits and debts."""
        self.tokens.clear()

    def deficit_tokens(self, traffic_class: str) -> float:
        """Return what the class may still spend."""
        return self.tokens.get(traffic_class, 0.0)

    def charge(self, traffic_class: str, cost_tokens: float) -> None:
        """Take tokens from a class (negative: give them back).

        What is given back leaves no more than `CREDIT_QUANTA` that was not there before, and no
        debt is deeper than `DEBT_QUANTA`: a giant that is refused, or a usage that is a lie, must
        not keep other classes, or its own, from their turns.
        """
        before = self.tokens.get(traffic_class, 0.0)
        after = before - cost_tokens
        if cost_tokens < 0.0:
            ceiling = CREDIT_QUANTA * self.quantum_tokens
            if after > ceiling:
                after = max(before, ceiling)
        elif after < -DEBT_QUANTA * self.quantum_tokens:
            after = min(before, -DEBT_QUANTA * self.quantum_tokens)
        self.tokens[traffic_class] = after


URGENCY_RATIO = 2.0
REVIEW_S = 0.5
RARE = 0.125
"""Below this offered load times window an idle slot costs more than the class gains by it."""
_Part = Annotated[
    float,
    Rule(low=0, high=1, high_is_allowed=False, why="or room would be kept for what never comes"),
]


class AdaptiveDrr(Deficits):
    """Shares output tokens by weights that move with severity, and keeps slots free.

    Weights: a class whose requests take a mean service time S has the weight
    w x (S_max / S)^severity. Calm, tokens are shared by weight; overloaded, turns are.

    Room: a slot that a long request holds cannot be taken back, so turns alone do not protect
    short requests. A class leaves free the room that more urgent classes (those whose requests
    can bear less than half its wait) are expected to need beyond what they hold already: the
    `room_quantile` of a Poisson number whose mean is their offered load, at least one slot
    unless they are rare, at most `room_share` of the window. With one slot nothing is kept.

    Among classes that can pay for their head the most urgent goes first.

    Source:
        The paper's adaptive DRR; its formula is not public. Deficits: Shreedhar & Varghese,
        1996. Weights, room and urgency: ours. A Poisson number of requests in service is that of
        the M/G/inf queue, as in Erlang's staffing of trunks.

    """

    def __init__(
        self,
        classes: tuple[TrafficClass, ...],
        *,
        quantum_tokens: Quantum = 256.0,
        room_quantile: _Part = 0.95,
        room_share: _Part = 0.5,
    ) -> None:
        """Start with no debts; `classes` give names and weights."""
        self.take_classes(classes)
        super().__init__(quantum_tokens)
        self._room = _Room(room_quantile, room_share)

    def take_classes(self, classes: tuple[TrafficClass, ...]) -> None:
        """Go by these weights; credits and debts stay."""
        self._weights = {c.name: c.weight for c in classes}
        self._rank = {c.name: i for i, c in enumerate(classes)}

    def choose(self, heads: Mapping[str, Ticket], signals: Signals, *, now: float) -> str | None:
        """Return the most urgent class that can pay and has room."""
        if len(signals.classes) > 1:
            heads = self._room.admitted(heads, signals, now)
        if not heads:
            return None
        if len(heads) == 1:
            ((name, head),) = heads.items()
            if not self.affordable(name, head):
                self.top_up(heads, self._weights, signals)
            return name
        able = [name for name, head in heads.items() if self.affordable(name, head)]
        if not able:
            self.top_up(heads, self._moved_weights(heads, signals), signals)
            able = [name for name, head in heads.items() if self.affordable(name, head)]
        return min(able, key=lambda name: (signals.classes[name].slack_s, self._rank[name]))

    def _moved_weights(self, heads: Mapping[str, Ticket], signals: Signals) -> dict[str, float]:
        slowest_s = max(signals.classes[name].service_s for name in heads)
        return {
            name: self._weights[name]
            * (slowest_s / max(1e-9, signals.classes[name].service_s)) ** signals.severity
            for name in heads
        }


class _Room:
    """How much room each class must leave to more urgent ones."""

    def __init__(self, quantile: float, share: float) -> None:
        self._quantile = quantile
        self._share = share
        self._window = 0.0
        self._most = 0
        self._review_at = -math.inf
        self._classes = 0
        self._leaving: list[tuple[str, list[ClassDemand], int]] = []

    def admitted(
        self, heads: Mapping[str, Ticket], signals: Signals, now: float
    ) -> Mapping[str, Ticket]:
        """Return the heads of the classes that may take a slot now."""
        window = signals.window
        if not 2 <= window < math.inf:
            return heads
        if (
            now >= self._review_at
            or window != self._window
            or len(signals.classes) != self._classes
        ):
            self._review(signals, now)
        most, free = self._most, window - signals.occupied
        if free > most:  # nothing that could be kept is touched
            return heads
        admitted = heads
        for name, urgent, wanted in self._leaving:
            if name in heads:
                held = 0
                for demand in urgent:
                    held += demand.in_flight
                # It leaves max(1, wanted - held) slots free, at most `left`. What they hold counts:
                # an urgent flood gets no more kept, deficits decide there.
                left = most - held
                if 0 < left >= free and (free <= 1 or wanted - held >= free):
                    if len(admitted) == 1:
                        return {}
                    admitted = {other: admitted[other] for other in admitted if other != name}
        return admitted

    def _review(self, signals: Signals, now: float) -> None:
        """Look at the demand anew: who is more urgent than whom, and how much they want.

        More urgent classes are looked at together: one slot kept for each of them would be more
        than all of them need.
        """
        window = self._window = signals.window
        self._most = int(self._share * window)
        self._review_at = now + REVIEW_S
        self._classes = len(signals.classes)
        self._leaving.clear()
        demands = signals.classes.values()
        for name, own in signals.classes.items():
            # Not itself: nobody can bear less than half of his own wait.
            urgent = [each for each in demands if each.slack_s * URGENCY_RATIO < own.slack_s]
            if urgent:
                offered = sum([demand.offered(now) for demand in urgent])
                if offered * window >= RARE:
                    wanted = max(1, poisson_quantile(offered, self._quantile))
                    self._leaving.append((name, urgent, wanted))


def poisson_quantile(mean: float, quantile: float) -> int:
    """Return the smallest number that a Poisson variable does not exceed with that probability.

    Above a mean of 30 the normal approximation serves.
    """
    if mean > 30.0:
        return math.ceil(mean + NormalDist().inv_cdf(quantile) * math.sqrt(mean))
    probability = below = math.exp(-mean)
    number = 0
    while below < quantile:
        number += 1
        probability *= mean / number
        below += probability
    return number
