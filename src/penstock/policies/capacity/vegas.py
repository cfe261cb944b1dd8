"""TCP Vegas for requests: the queue as the excess over the shortest latency."""

import math

from penstock.core.events import RefusalCause
from penstock.core.policy import Reply
from penstock.core.ticket import Ticket
from penstock.policies.capacity.counting import Initial, Largest, MovingWindow

PROBE_EVERY = 30
PROBE_SHARE = 0.75  # the original draws it from [0.5, 1); the core has no chance


class Vegas(MovingWindow):
    """Keeps window x (1 - shortest latency / latency), its idea of the queue, between two marks.

    The shortest latency is that of the shortest reply, so every longer one looks queued.

    Source:
        Brakmo & Peterson, IEEE JSAC 13(8), 1995, as VegasLimit in Netflix's concurrency-limits
        (Apache-2.0) has it, written anew: marks of 3 and 6, steps of 1, each times
        max(1, log10(window)).

    """

    def __init__(self, *, initial: Initial = 20, largest: Largest = 1000) -> None:
        """Start at `initial`.

        Raises:
            ValueError: `largest` is below `initial`.

        """
        super().__init__(initial, largest)
        self._shortest_s = math.inf
        self._replies = 0

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Step up or down by the queue that this reply shows."""
        self._replies += 1
        latency_s = max(1e-9, reply.latency_s)
        if self._replies >= PROBE_SHARE * PROBE_EVERY * self.window:
            self._replies = 0
            self._shortest_s = latency_s
            return
        if latency_s < self._shortest_s:
            self._shortest_s = latency_s
            return
        if reply.in_flight * 2 < self.window:
            return
        step = self._step()
        queue = math.ceil(self.window * (1.0 - self._shortest_s / latency_s))
        if queue <= step:
            self._set(self.window + 6.0 * step)
        elif queue < 3.0 * step:
            self._set(self.window + step)
        elif queue > 6.0 * step:
            self._set(self.window - step)

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Shrink the window by one step."""
        self._set(self.window - self._step())

    def _step(self) -> float:
        return float(max(1, int(math.log10(max(1.0, self.window)))))
