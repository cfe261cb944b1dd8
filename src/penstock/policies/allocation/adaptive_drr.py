"""Adaptive deficit round robin: turns by weight, and room kept for the class that comes next."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Annotated

from penstock.core.model import TrafficClass
from penstock.core.rule import Rule
from penstock.core.signals import ClassDemand, Signals
from penstock.core.ticket import Ticket
from penstock.policies.allocation.deficits import Deficits, Quantum

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
