"""Fewer for a moment: the speed of a provider that was full from the first reply on."""

import math
from dataclasses import dataclass

from penstock.policies.capacity.window.flights import Record

CROWDED, REPLIES = 0.6, 12
"""If no reply of the first so many flew among fewer than this share of the window, ..."""
RECORDS = 3
"""... half of the window flies until so many did."""


@dataclass(slots=True)
class Trial:
    """Halves the window where all replies so far were crowded: nothing else tells its speed.

    Replies of a provider that shares are all alike slow then, and the line through them takes the
    crowd for its speed. A window that shrank below all that was seen asks again. First tokens alone
    ask nothing: long streams would hold everybody up until the first of them end.

    Attributes:
        fewest: mean number in flight of the least crowded reply so far.
        few, window: how many may fly while it is open, and how many before.

    """

    fewest: float = math.inf
    few: float = math.inf
    window: float = math.inf
    _since: float = 0.0
    _records: int = 0

    @property
    def is_open(self) -> bool:
        """Whether fewer fly at the moment."""
        return self.few < math.inf

    def goes_on(self, record: Record, window: float, replies: int, *, now: float) -> bool:
        """Take in a record; say whether the trial is open from now on."""
        self.fewest = min(self.fewest, record.mean_in_flight)
        if self.is_open:
            self._records += record.sent_at >= self._since
            if self._records >= RECORDS:
                self.few = math.inf
        elif replies >= REPLIES and self.fewest > CROWDED * window > CROWDED:
            self.few, self.window = window // 2.0, window
            self._since, self._records = now, 0
        return self.is_open
