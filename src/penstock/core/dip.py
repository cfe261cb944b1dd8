"""A dip: half the window for a while, where nobody has yet seen what fewer in flight are like."""

import math
from statistics import median

AFTER_REPLIES, DIP_REPLIES = 16, 3
CROWD = 8.0
"""The least number in flight at which what flew may have been a crowd from the start."""
LEAST_GAIN, MOST_GAIN = 0.15, 0.9
"""Replies among half as many that are faster by less than this show no crowd; sharing does not
make them faster by more."""


class Dip:
    """Finds out whether the line of service times was drawn through crowded replies only.

    A provider that is full from the first moment shows nothing but crowded replies, and where all
    share it a line through them takes the crowd for its speed. After `AFTER_REPLIES` of which
    none flew among few, the window is halved until `DIP_REPLIES` have flown among so few. If
    those are faster, it was a crowd; then the half may be one as well, and is looked at in turn.
    If they are not, the line is right and there are no more dips.

    Source:
        Ours; BBR's ProbeRTT (Cardwell et al., CACM 60(2), 2017) asks the same question of the
        round-trip time, but again and again and with four packets.

    """

    def __init__(self) -> None:
        """Start with a line that nothing is known of."""
        self.open = False
        self._least_n = math.inf
        self._crowd = CROWD
        self._replies = 0
        self._ratios: list[float] = []

    def replied(self, n: float, limit: float, ratio: float, *, may_open: bool) -> float | None:
        """Take in a reply and open or close the dip.

        Args:
            n: how many flew beside it, itself included, on average.
            limit: the window without the dip.
            ratio: its latency over the line.
            may_open: False where a dip could not tell anything, or its cost is not worth it.

        Returns:
            The median ratio among half as many, if the dip has just shown that they are faster.

        """
        if not self.open:
            self._replies += 1
            self._least_n = min(self._least_n, n)
            crowded = self._least_n >= self._crowd and 2.0 * self._least_n > limit
            self.open = may_open and crowded and self._replies >= AFTER_REPLIES
            return None
        if 2.0 * n > limit:
            return None
        self._ratios.append(ratio)
        if len(self._ratios) < DIP_REPLIES:
            return None
        gain = max(1.0 - MOST_GAIN, median(self._ratios))
        self._ratios.clear()
        self.open = False
        self._replies = 0
        if gain > 1.0 - LEAST_GAIN:
            self._least_n = n
            return None
        self._least_n, self._crowd = math.inf, 0.0
        return gain
