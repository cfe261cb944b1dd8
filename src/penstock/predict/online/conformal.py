"""How far above the median the p90 has to be: recent errors, per group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.predict.online.groups import KeptGroups, Window

_START_ABOVE = 2.5  # in spreads, before any reply
_STEP = 0.02  # of the level, per reply: 10 misses in a row raise it from 0.90 to 0.98
_LEVEL_LIMITS = (0.7, 0.985)
_RECENT = 40  # replies that an alarm looks at
_ALARM_BELOW = 0.72  # 0.90 covered gives 29 or fewer of 40 by chance once in 1,400 times
_COVERAGE = 0.9
_RESIDUALS = 200  # remembered per group
_SHRINK = 10.0  # see `GroupCentres`


@dataclass(slots=True)
class _GroupResiduals:
    residuals: Window
    level: float = _COVERAGE
    recent: list[bool] = field(default_factory=list)


class ConformalP90:
    """Keeps 90 % of replies below p90, on each route and under drift.

    p90 is the median plus a quantile of the last residuals of the group, leaning on wider
    groups while it has few. The quantile's level moves up after a miss and down after a hit,
    so that a route whose replies got longer is covered again before its window has turned.
    When too many of the last 40 replies were above p90, the group's past is given up.

    Source:
        Split conformal prediction with a sliding window; adaptive level after Gibbs & Candes,
        "Adaptive conformal inference under distribution shift", NeurIPS 2021.

    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._groups: KeptGroups[_GroupResiduals] = KeptGroups()
        self.alarms = 0

    def above(self, keys: Sequence[str]) -> float:
        """Return how many spreads p90 is above the median, for groups from wide to narrow."""
        value = _START_ABOVE
        narrow = self._groups.get(keys[-1])
        level = narrow.level if narrow is not None else _COVERAGE
        for key in keys:
            group = self._groups.get(key)
            if group is not None and len(group.residuals):
                count = len(group.residuals)
                share = count / (count + _SHRINK)
                exact = min(1.0, level * (count + 1) / count)  # finite-sample correction
                value += share * (group.residuals.quantile(exact) - value)
        return max(0.0, value)

    def learn(self, keys: Sequence[str], residual: float, *, covered: bool) -> bool:
        """Take in a residual in spreads, and whether p90 held; True if that raised the alarm."""
        narrow = _GroupResiduals(Window(0))
        for key in keys:
            narrow = self._groups.use(key, self._empty)
            narrow.residuals.add(residual)
        level = narrow.level + _STEP * (_COVERAGE - float(covered))
        narrow.level = min(_LEVEL_LIMITS[1], max(_LEVEL_LIMITS[0], level))
        narrow.recent.append(covered)
        if len(narrow.recent) < _RECENT:
            return False
        alarm = sum(narrow.recent) <= _ALARM_BELOW * _RECENT
        del narrow.recent[: _RECENT if alarm else 1]
        if alarm:
            narrow.residuals.keep_last(_RECENT)
            self.alarms += 1
        return alarm

    def _empty(self) -> _GroupResiduals:
        return _GroupResiduals(Window(_RESIDUALS))

    def settle(self, seen: Mapping[str, Sequence[float]]) -> None:
        """Forget where chance left the levels and windows at the end of a replay.

        Levels go back to 0.90, and windows hold a fair sample of these residuals, in spreads.
        """
        for key, group in self._groups.items():
            group.level = _COVERAGE
            if key in seen:
                group.residuals.refill(seen[key])

    def export(self) -> dict[str, tuple[float, list[bool], list[float]]]:
        """Return level, recent hits and residuals of each group, longest unused first."""
        return {
            key: (group.level, list(group.recent), group.residuals.values())
            for key, group in self._groups.items()
        }

    def restore(self, state: dict[str, tuple[float, list[bool], list[float]]]) -> None:
        """Take over what `export` gave."""
        for key, (level, recent, residuals) in state.items():
            group = _GroupResiduals(Window(_RESIDUALS), level, list(recent))
            for residual in residuals:
                group.residuals.add(residual)
            self._groups.put(key, group)
