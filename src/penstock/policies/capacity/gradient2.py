"""Netflix's Gradient2: the long-term mean latency over the latency now."""

from typing import Annotated

from penstock.core.events import RefusalCause
from penstock.core.policy import Reply
from penstock.core.rule import Rule
from penstock.core.ticket import Ticket
from penstock.policies.capacity.counting import Initial, Largest, MovingWindow

WARM_UP = 10
DRIFT = 0.95
_Queue = Annotated[float, Rule(low=0)]
_Tolerance = Annotated[float, Rule(low=1)]
_Smoothing = Annotated[float, Rule(low=0, low_is_allowed=False, high=1)]
_Memory = Annotated[float, Rule(low=1, why="the number of replies that a mean looks back on")]


class Gradient2(MovingWindow):
    """The window follows window x gradient + queue, smoothed.

        gradient = tolerance x long-term mean latency / latency of this reply, in [0.5, 1]

    Latencies are taken as they are: a long reply looks like a slow provider.

    Source:
        Gradient2Limit in Netflix's concurrency-limits (Apache-2.0), read as a specification and
        written anew; its constants, except that the window may fall to 1 (there: 20).

    """

    def __init__(
        self,
        *,
        initial: Initial = 20,
        largest: Largest = 200,
        queue: _Queue = 4,
        tolerance: _Tolerance = 1.5,
        smoothing: _Smoothing = 0.2,
        memory: _Memory = 600,
    ) -> None:
        """Start at `initial`.

        Raises:
            ValueError: `largest` is below `initial`.

        """
        super().__init__(initial, largest)
        self._queue = queue
        self._tolerance = tolerance
        self._smoothing = smoothing
        self._memory = memory
        self._long_s = 0.0
        self._sum_s = 0.0
        self._count = 0

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Move towards what the gradient says."""
        latency_s = max(1e-9, reply.latency_s)
        long_s = self._long_term_s(latency_s)
        if long_s / latency_s > 2.0:
            self._long_s *= DRIFT
        if reply.in_flight < self.window / 2.0:
            return
        gradient = max(0.5, min(1.0, self._tolerance * long_s / latency_s))
        wanted = self.window * gradient + self._queue
        smoothed = self.window * (1.0 - self._smoothing) + wanted * self._smoothing
        self._set(smoothed)

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Halve what the smoothing lets through; the original leaves refusals to its caller."""
        self._set(self.window * (1.0 - self._smoothing / 2.0))

    def _long_term_s(self, latency_s: float) -> float:
        """Return the mean latency: plain for the first replies, then exponential."""
        if self._count < WARM_UP:
            self._count += 1
            self._sum_s += latency_s
            self._long_s = self._sum_s / self._count
        else:
            self._long_s += (latency_s - self._long_s) * 2.0 / (self._memory + 1.0)
        return self._long_s
