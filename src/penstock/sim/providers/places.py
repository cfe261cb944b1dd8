"""`slots`, `serial`, `shared` and `thrash`: what `sharing.py` serves, queued inside or not."""

import math
from abc import abstractmethod

from penstock.sim.params import count, not_negative, positive
from penstock.sim.providers.demand import Jittered

STEEPEST_THETA = 10.0
"""With one more than fits in a hundred already a tenth is lost."""


class PlacesParams(Jittered):
    """What a model says of itself that `sharing.py` serves."""

    tokens_per_s: float = positive(200.0, low=1e-3)
    ttft_s: float = not_negative(0.15)

    @abstractmethod
    def places(self) -> float:
        """Return how many jobs may be in service at once; inf if there is no such bound."""

    @abstractmethod
    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of each of `active` jobs."""


class SlotsParams(PlacesParams):
    """What continuous batching looks like from outside.

    Each of n active requests emits tokens_per_s / (1 + beta x n), after ttft_s; the time to the
    first token does not stretch with n.

    Source:
        PAPER.md's provider models; the constants are ours.

    """

    slots: int = count(8)
    beta: float = not_negative(0.0, high=1e3)

    def places(self) -> float:
        """Return the number of slots."""
        return self.slots

    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of each active request."""
        return 1.0, self.tokens_per_s / (1.0 + self.beta * active)


class SerialParams(PlacesParams):
    """`slots` with one slot, such as a small local model behind a lock."""

    def places(self) -> float:
        """Return 1."""
        return 1

    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of the one active request."""
        return 1.0, self.tokens_per_s


class SharedParams(PlacesParams):
    """Each of n active requests emits tokens_per_s x min(1, capacity/n), after ttft_s.

    The time to the first token stretches by the same factor: prefill shares the machine too.

    Source:
        PAPER.md's provider models; the constants are ours.

    """

    capacity: int = count(8)

    def places(self) -> float:
        """Return inf: nobody waits at the door."""
        return math.inf

    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of each active request."""
        share = min(1.0, self.capacity / active)
        return share, self.tokens_per_s * share


class ThrashParams(SharedParams):
    """As `shared`, but beyond capacity the total falls as (capacity/n)^theta.

    What preemption of the KV cache looks like from outside: work is thrown away and done again.
    Each request thus emits tokens_per_s x (capacity/n)^(1 + theta).

    Source:
        PAPER.md's provider models; the constants are ours.

    """

    theta: float = not_negative(0.5, high=STEEPEST_THETA)

    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of each active request."""
        share = min(1.0, self.capacity / active) ** (1.0 + self.theta)
        return share, self.tokens_per_s * share
