"""`serial`: one request at a time, in order of arrival."""

from dataclasses import dataclass

from penstock.sim.params import not_negative, positive
from penstock.sim.providers.demand import Jittered


@dataclass(frozen=True, slots=True)
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
