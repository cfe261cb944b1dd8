"""The part of an allocator that keeps no accounts."""


class Costless:
    """For allocators that look at turns, age or slots and not at what requests cost."""

    def charge(self, traffic_class: str, cost_tokens: float) -> None:
        """Ignore the cost."""

    def settle(self, traffic_class: str, excess_tokens: float) -> None:
        """Ignore the correction."""

    def rest(self) -> None:
        """Have nothing to forget."""

    def deficit_tokens(self, traffic_class: str) -> float:
        """Return 0: there is no account."""
        return 0.0
