"""What waits or is deferred, by class: the ledger that queue limits look at."""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.model import TrafficClass
from penstock.core.ticket import Ticket


@dataclass(slots=True)
class _ClassBacklog:
    """What is held back of one class."""

    limit: int
    limit_tokens: float
    count: int = 0
    tokens: float = 0.0


class Backlog:
    """Counts and predicted tokens of everything that is held back, in all lanes."""

    def __init__(self, classes: Mapping[str, TrafficClass], limit: int) -> None:
        """Start empty; `limit` is for all classes together."""
        self._limit = limit
        self._count = 0
        self._held = {
            name: _ClassBacklog(each.queue_limit, each.queue_limit_tokens)
            for name, each in classes.items()
        }

    def reconfigure(self, classes: Mapping[str, TrafficClass], limit: int) -> None:
        """Take other limits; what is held back stays, above them too."""
        self._limit = limit
        for name, each in classes.items():
            held = self._held.setdefault(
                name, _ClassBacklog(each.queue_limit, each.queue_limit_tokens)
            )
            held.limit, held.limit_tokens = each.queue_limit, each.queue_limit_tokens

    def is_full_for(self, ticket: Ticket) -> bool:
        """Return whether one more request of the ticket's class and size is too much.

        A request above the whole token limit may enter while its class holds nothing, or it
        could never be served.
        """
        held = self._held[ticket.request.traffic_class]
        if self._count >= self._limit or held.count >= held.limit:
            return True
        return held.count > 0 and held.tokens + ticket.cost_tokens > held.limit_tokens

    def enter(self, ticket: Ticket) -> None:
        """Count a ticket that is held back from now on."""
        held = self._held[ticket.request.traffic_class]
        self._count += 1
        held.count += 1
        held.tokens += ticket.cost_tokens

    def clear(self) -> None:
        """Forget who is held back, to count them anew."""
        self._count = 0
        for held in self._held.values():
            held.count, held.tokens = 0, 0.0

    def leave(self, ticket: Ticket) -> None:
        """Count out a ticket that goes upstream or ends."""
        held = self._held[ticket.request.traffic_class]
        self._count -= 1
        held.count -= 1
        # Where nothing is left, rounding errors end.
        held.tokens = held.tokens - ticket.cost_tokens if held.count else 0.0
