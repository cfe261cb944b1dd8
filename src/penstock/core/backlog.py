"""What waits or is deferred, by class: the ledger that queue limits look at."""

from collections.abc import Mapping

from penstock.core.model import TrafficClass
from penstock.core.ticket import Ticket


class Backlog:
    """Counts and predicted tokens of everything that is held back, in all lanes."""

    def __init__(self, classes: Mapping[str, TrafficClass], limit: int) -> None:
        """Start empty; `limit` is for all classes together."""
        self._classes = classes
        self._limit = limit
        self._count = 0
        self._counts = dict.fromkeys(classes, 0)
        self._tokens = dict.fromkeys(classes, 0.0)

    def is_full_for(self, ticket: Ticket) -> bool:
        """Say whether one more request of the ticket's class and size is too much.

        A request above the whole token limit may enter while its class holds nothing, or it
        could never be served.
        """
        name = ticket.request.traffic_class
        known, count = self._classes[name], self._counts[name]
        if self._count >= self._limit or count >= known.queue_limit:
            return True
        cost_tokens = ticket.cost_tokens
        return count > 0 and self._tokens[name] + cost_tokens > known.queue_limit_tokens

    def enter(self, ticket: Ticket) -> None:
        """Count a ticket that is held back from now on."""
        name = ticket.request.traffic_class
        self._count += 1
        self._counts[name] += 1
        self._tokens[name] += ticket.cost_tokens

    def leave(self, ticket: Ticket) -> None:
        """Count out a ticket that goes upstream or ends."""
        name = ticket.request.traffic_class
        self._count -= 1
        self._counts[name] -= 1
        self._tokens[name] -= ticket.cost_tokens
        if not self._counts[name]:  # rounding errors end here
            self._tokens[name] = 0.0
