"""Strict priority for the class with the shorter requests."""

from collections.abc import Mapping

from penstock.core.model import TrafficClass
from penstock.core.policy import Allocator
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket


class ShortPriority(Allocator):
    """The waiting class with the smallest configured estimate always goes first.

    Source:
        The paper's "Short-Priority" baseline; Cobham, Operations Research 2(1), 1954.

    """

    def __init__(self, classes: tuple[TrafficClass, ...]) -> None:
        """Rank the classes by their configured median length, then by their order."""
        self.take_classes(classes)

    def take_classes(self, classes: tuple[TrafficClass, ...]) -> None:
        """Rank these."""
        ranked = sorted(classes, key=lambda c: c.estimate.p50_tokens)
        self._ranked = [c.name for c in ranked]

    def choose(self, heads: Mapping[str, Ticket], signals: Signals, *, now: float) -> str | None:
        """Return the first waiting class in the ranking."""
        for name in self._ranked:
            if name in heads:
                return name
        return None
