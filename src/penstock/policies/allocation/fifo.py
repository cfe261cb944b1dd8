"""First come, first served across classes."""

from collections.abc import Mapping

from penstock.core.model import TrafficClass
from penstock.core.policy import Allocator
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket


class Fifo(Allocator):
    """The oldest head goes first; with `fifo` ordering this is one plain queue."""

    def __init__(self, classes: tuple[TrafficClass, ...]) -> None:
        """Take the classes for the sake of the common form."""

    def choose(self, heads: Mapping[str, Ticket], signals: Signals, *, now: float) -> str | None:
        """Return the class of the head that arrived first."""
        return min(heads, key=lambda name: heads[name].request.id, default=None)
