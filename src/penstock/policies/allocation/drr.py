"""Deficit round robin with fixed weights."""

from collections.abc import Mapping

from penstock.core.deficits import Deficits
from penstock.core.model import TrafficClass
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket


class Drr:
    """Shares output tokens by fixed weights; classes take turns in their configured order.

    Source:
        Shreedhar & Varghese, IEEE/ACM ToN 4(3), 1996.

    """

    def __init__(self, classes: tuple[TrafficClass, ...], *, quantum_tokens: float = 256.0) -> None:
        """Start with no debts."""
        self.take_classes(classes)
        self._deficits = Deficits(quantum_tokens)

    def take_classes(self, classes: tuple[TrafficClass, ...]) -> None:
        """Go by these weights, from the first class on; credits and debts stay."""
        self._weights = {c.name: c.weight for c in classes}
        self._ring = [c.name for c in classes]
        self._turn = 0

    def choose(self, heads: Mapping[str, Ticket], signals: Signals, *, now: float) -> str | None:
        """Return the class whose turn it is."""
        current = self._ring[self._turn]
        if current in heads and self._deficits.affordable(current, heads[current]):
            return current
        name = self._next_able(heads)
        if name is None and heads:
            self._deficits.top_up(heads, self._weights, signals)
            name = self._next_able(heads)
        if name is not None:
            self._turn = self._ring.index(name)
        return name

    def charge(self, traffic_class: str, cost_tokens: float) -> None:
        """Take the predicted cost from the class."""
        self._deficits.charge(traffic_class, cost_tokens)

    def settle(self, traffic_class: str, excess_tokens: float) -> None:
        """Correct the charge by what the reply really cost."""
        self._deficits.charge(traffic_class, excess_tokens)

    def rest(self) -> None:
        """Nobody contends: nobody owes."""
        self._deficits.clear()

    def deficit_tokens(self, traffic_class: str) -> float:
        """Return what the class may still spend."""
        return self._deficits.tokens.get(traffic_class, 0.0)

    def _next_able(self, heads: Mapping[str, Ticket]) -> str | None:
        for step in range(1, len(self._ring) + 1):
            name = self._ring[(self._turn + step) % len(self._ring)]
            if name in heads and self._deficits.affordable(name, heads[name]):
                return name
        return None
