"""`slots` and `serial`: so many places, or one, and a hidden first-come-first-served queue."""

from penstock.sim.params import count, not_negative, positive
from penstock.sim.providers.demand import Jittered


class SlotsParams(Jittered):
    """What continuous batching looks like from outside.

    Each of n active requests emits tokens_per_s / (1 + beta x n), after ttft_s; the time to the
    first token does not stretch with n.

    Source:
        PAPER.md's provider models; the constants are ours.

    """

    slots: int = count(8)
    tokens_per_s: float = positive(200.0, low=1e-3)
    ttft_s: float = not_negative(0.15)
    beta: float = not_negative(0.0, high=1e3)

    def places(self) -> float:
        """Return the number of slots."""
        return self.slots

    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of each active request."""
        return 1.0, self.tokens_per_s / (1.0 + self.beta * active)


class SerialParams(Jittered):
    """`slots` with one slot, such as a small local model behind a lock."""

    tokens_per_s: float = positive(200.0, low=1e-3)
    ttft_s: float = not_negative(0.15)

    def places(self) -> float:
        """Return 1."""
        return 1

    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of the one active request."""
        return 1.0, self.tokens_per_s
