"""Whether replies are late among many and not among few: being late may be mere chance."""

import math
from collections import deque

from penstock.core.noise import log_ratio

KEEP = 32
DEVIATIONS, LEAST_BELOW = 3.0, 3
"""So many standard errors apart is no chance; with fewer among fewer nothing is compared."""
PRIOR_COUNT, PRIOR_DEVIATION = 4.0, 0.03
"""Before anything is seen, the scatter counts as if so many replies had shown so much."""


class CrowdTest:
    """Compares the replies among more than some number in flight with those among fewer.

    If a provider serves so many at once, replies are late among more and not among fewer. If
    those among fewer scatter so much that those among more are nothing special, the late ones
    were late by chance.

    Source:
        Ours; two means, in units of the standard error that the lower group's scatter gives.

    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._seen: deque[tuple[float, float]] = deque(maxlen=KEEP)

    def saw(self, n: float, ratio: float) -> None:
        """Take in a reply: how many flew beside it, itself included, and its time over the line."""
        self._seen.append((n, ratio))

    def shows(self, level: float) -> bool:
        """Say whether those among more than `level` are later than chance explains."""
        above = [log_ratio(ratio) for n, ratio in self._seen if n > level]
        below = [log_ratio(ratio) for n, ratio in self._seen if n <= level]
        if not above:
            return False
        if len(below) < LEAST_BELOW:
            return True
        mean = sum(below) / len(below)
        squares = sum((log - mean) ** 2 for log in below)
        count = PRIOR_COUNT + len(below)
        deviation = math.sqrt((PRIOR_COUNT * PRIOR_DEVIATION**2 + squares) / count)
        error = deviation * math.sqrt(1.0 / len(above) + 1.0 / len(below))
        return sum(above) / len(above) - mean > DEVIATIONS * error

    def seen(self) -> list[tuple[float, float]]:
        """Return n and ratio of all that count."""
        return list(self._seen)

    def restart(self) -> None:
        """Forget: the line starts anew."""
        self._seen.clear()
