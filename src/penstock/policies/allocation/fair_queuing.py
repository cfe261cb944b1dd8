"""Round robin across classes, a request at a time."""

from collections.abc import Mapping

from penstock.core.model import TrafficClass
from penstock.core.policy import Allocator
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket


class FairQueuing(Allocator):
    """Every class that waits sends one request in its turn, whatever it costs.

    Source:
        Nagle, RFC 970, 1985: round robin between sources; the paper's "Fair Queuing".

    """

    def __init__(self, classes: tuple[TrafficClass, ...]) -> None:
        """Start with the first class's turn."""
        self.take_classes(classes)

    def take_classes(self, classes: tuple[TrafficClass, ...]) -> None:
        """Go round these classes, from the first one on."""
        self._ring = [c.name for c in classes]
        self._last = len(self._ring) - 1

    def choose(self, heads: Mapping[str, Ticket], signals: Signals, *, now: float) -> str | None:
        """Return the first waiting class after the one that was served last."""
        for step in range(1, len(self._ring) + 1):
            name = self._ring[(self._last + step) % len(self._ring)]
            if name in heads:
                return name
        return None

    def charge(self, traffic_class: str, cost_tokens: float) -> None:
        """Pass the turn on: the class has been served."""
        self._last = self._ring.index(traffic_class)
