"""A fixed part of the window for every class: isolation without borrowing."""

import math
from collections.abc import Mapping
from typing import Annotated

from penstock.core.model import TrafficClass
from penstock.core.policy import Allocator
from penstock.core.rule import BrokenRules, Rule
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket

_QUOTA = Rule(low=0, low_is_allowed=False, high=1)
_Quotas = Mapping[str, Annotated[float, _QUOTA]]


class QuotaTiered(Allocator):
    """Each class may hold its quota of the window and no more, even when others idle.

    By default the class with the shortest requests has a quarter, the others share the rest by
    weight. A quota is at least one slot. Without a window there is nothing to divide.

    Source:
        The paper's "quota-tiered isolation"; its quotas are not public, the default is ours.

    """

    def __init__(self, classes: tuple[TrafficClass, ...], *, quotas: _Quotas | None = None) -> None:
        """Fix the quotas, as shares of the window.

        Raises:
            ValueError: a quota is not in (0, 1], or names no class.

        """
        if quotas is not None and not isinstance(quotas, Mapping):
            raise BrokenRules(("quotas", quotas, "must be a table of shares by class"))
        self._stated = dict(quotas) if quotas else None
        self.take_classes(classes)
        rule = f"must be a share in (0, 1] of one of the classes {', '.join(self._ranked)}"
        broken = [
            (f"quotas.{name}", quota, rule)
            for name, quota in self._quotas.items()
            if name not in self._ranked or not _QUOTA.allows(quota)
        ]
        if broken:
            raise BrokenRules(*broken)

    def take_classes(self, classes: tuple[TrafficClass, ...]) -> None:
        """Rank these; quotas that were stated stay."""
        ranked = sorted(classes, key=lambda c: c.estimate.p50_tokens)
        self._ranked = [c.name for c in ranked]
        self._quotas = self._stated or _default_quotas(ranked)

    def choose(self, heads: Mapping[str, Ticket], signals: Signals, *, now: float) -> str | None:
        """Return the first class, shortest requests first, that is below its quota."""
        for name in self._ranked:
            if name in heads and signals.classes[name].in_flight < self._slots(name, signals):
                return name
        return None

    def _slots(self, name: str, signals: Signals) -> float:
        quota = self._quotas.get(name, 1.0)
        if quota >= 1 or math.isinf(signals.window):
            return math.inf
        return max(1.0, math.floor(quota * signals.window + 0.5))


def _default_quotas(ranked: list[TrafficClass]) -> dict[str, float]:
    if len(ranked) == 1:
        return {ranked[0].name: 1.0}
    first, *others = ranked
    total = sum(c.weight for c in others)
    return {first.name: 0.25} | {c.name: 0.75 * c.weight / total for c in others}
