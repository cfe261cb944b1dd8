"""How much a provider's times scatter by themselves, without any waiting."""

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

MOST_TOLERANCE, LEAST_TOLERANCE, TOLERANCE_DEVIATIONS = 1.5, 0.03, 4.0
QUIET, QUIET_AT_FIRST, FIRST_DEVIATION = 48, 4, 0.03
"""The noise is judged by so many quiet ones; before any, as if so many had shown so much."""
FIRST_TOLERANCE = LEAST_TOLERANCE + TOLERANCE_DEVIATIONS * FIRST_DEVIATION
RATHER_KNOWN, KNOWN = 8, 24
MOST_TYPICAL = 1.5
QUARTILE_DEVIATIONS = 0.674
"""A normal distribution's lower quartile lies so many standard deviations below its median."""
TINY_RATIO = 1e-3


@dataclass(slots=True)
class Noise:
    """The scatter around the line of the fastest, from times that had no reason to be longer.

    Attributes:
        typical: their median over the line.
        deviation: standard deviation of the logarithm.
        tolerance: the relative excess over the line that is no sign of waiting yet: four standard
            deviations above the median, which jitter alone hardly ever reaches.
        is_rather_known: True once something has been seen of it.
        is_known: True once enough has been seen to tell chance from waiting.

    """

    typical: float = 1.0
    deviation: float = FIRST_DEVIATION
    tolerance: float = FIRST_TOLERANCE
    is_rather_known: bool = False
    is_known: bool = False
    _quiet: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=QUIET))

    def observe(self, ratio: float, n: float) -> None:
        """Learn from a time over the line that had no reason to be longer.

        Of the spread only the lower half counts, as some that should not have waited may have;
        and only around the line over `n`, as more of them may be slower without any chance in it.

        Args:
            ratio: time over prediction.
            n: how many flew beside it, itself included.

        """
        self._quiet.append((n, log_ratio(ratio)))
        count = len(self._quiet)
        self.is_rather_known = count >= RATHER_KNOWN
        self.is_known = count >= KNOWN
        self.typical = min(MOST_TYPICAL, max(1.0, math.exp(_lower(self._quiet, 0.0)[0])))
        few = QUIET_AT_FIRST / (QUIET_AT_FIRST + count)
        spread = _lower(self._quiet, _slope(self._quiet))[1]
        self.deviation = few * FIRST_DEVIATION + (1.0 - few) * spread
        above = self.typical * math.exp(TOLERANCE_DEVIATIONS * self.deviation) - 1.0
        self.tolerance = min(MOST_TOLERANCE, LEAST_TOLERANCE + above)

    def restart(self, *, crowded: bool) -> None:
        """Start with a new line; what was seen in a crowd says nothing of the spread either."""
        self.typical = 1.0
        self._quiet.clear()
        self.is_rather_known = self.is_known = False
        if crowded:
            self.deviation, self.tolerance = FIRST_DEVIATION, FIRST_TOLERANCE


def log_ratio(ratio: float) -> float:
    """Return the logarithm of a time over its prediction, of one that is no time at all too."""
    return math.log(max(TINY_RATIO, ratio))


def _slope(points: Collection[tuple[float, float]]) -> float:
    """Return the least-squares slope through (x, y), not below 0."""
    count = len(points)
    sx = sy = sxx = sxy = 0.0
    for x, y in points:
        sx += x
        sy += y
        sxx += x * x
        sxy += x * y
    spread = count * sxx - sx * sx
    return max(0.0, (count * sxy - sx * sy) / spread) if spread > 1e-9 else 0.0


def _lower(points: Collection[tuple[float, float]], slope: float) -> tuple[float, float]:
    """Return median and deviation of y - slope x, the deviation from the lower half alone."""
    values = sorted([y - slope * x for x, y in points])
    count = len(values)
    median = values[count // 2]
    return median, (median - values[(count + 1) // 4]) / QUARTILE_DEVIATIONS
