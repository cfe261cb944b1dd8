"""Deficit round robin with fixed weights."""

from collections.abc import Mapping

from penstock.core.model import TrafficClass
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket
from penstock.policies.allocation.adaptive_drr import Deficits, Quantum


class Drr(Deficits):
    """Shares output tokens by fixed weights; classes take turns in their configured order.

    Source:
        Shreedhar & Varghese, IEEE/ACM ToN 4(3), 1996.

    """

    def __init__(
        self, classes: tuple[TrafficClass, ...], *, quantum_tokens: Quantum = 256.0
    ) -> None:
        """Start with no debts."""
        self.take_classes(classes)
        super().__init__(quantum_tokens)

    def take_classes(self, classes: tuple[TrafficClass, ...]) -> None:
        """Go by these weights, from the first class on; credits and debts stay."""
        self._weights = {c.name: c.weight for c in classes}
        self._ring = [c.name for c in classes]
        self._turn = 0

    def choose(self, heads: Mapping[str, Ticket], signals: Signals, *, now: float) -> str | None:
        """Return the class whose turn it is."""
        current = self._ring[self._turn]
        if current in heads and self.affordable(current, heads[current]):
            return current
        name = self._next_able(heads)
        if name is None and heads:
            self.top_up(heads, self._weights, signals)
            name = self._next_able(heads)
        if name is not None:
            self._turn = self._ring.index(name)
        return name

    def _next_able(self, heads: Mapping[str, Ticket]) -> str | None:
        for step in range(1, len(self._ring) + 1):
            name = self._ring[(self._turn + step) % len(self._ring)]
            if name in heads and self.affordable(name, heads[name]):
                return name
        return None
