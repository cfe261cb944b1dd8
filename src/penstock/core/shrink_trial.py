"""A smaller window as a trial: where it makes replies no faster, they were not late for waiting."""

from collections import deque
from statistics import median

REPLIES, LEAST_REPLIES = 8, 4
FEWER = 0.75
"""A window at most so much of what it was tells whether fewer in flight are faster."""


class ShrinkTrial:
    """Compares the replies before the window shrank with those sent into the smaller one.

    Where the provider was full, replies are faster among fewer: at a provider that shares, as
    much faster as the window is smaller. If they are not even half as much faster, being late
    was chance: how those sent into the smaller window scatter is the provider's own noise.

    Source:
        Ours.

    """

    def __init__(self) -> None:
        """Start with nothing to compare."""
        self._recent: deque[float] = deque(maxlen=REPLIES)
        self._after: list[tuple[float, float]] = []
        self._before = 0.0
        self.window = 0.0
        self.excess = 0.0
        self._since = 0.0

    def shrunk(self, window: float, excess: float, now: float) -> None:
        """Note that the window was `window` until now, and by how much a reply was late."""
        self._since = now
        self._after.clear()
        if self.window:
            self.excess = max(self.excess, excess)
        elif len(self._recent) >= LEAST_REPLIES:
            self.window, self.excess = window, excess
            self._before = median(self._recent)

    def replied(
        self, n: float, limit: float, ratio: float, sent_at: float
    ) -> list[tuple[float, float]] | None:
        """Take in a reply.

        Args:
            n: how many flew beside it, itself included.
            limit: the window.
            ratio: its latency over the line.
            sent_at: when it was sent.

        Returns:
            n and ratio of the trial's replies if these were no faster than those before.

        """
        self._recent.append(ratio)
        if not self.window or sent_at < self._since or n > limit:
            return None
        fewer = limit / self.window
        if fewer > FEWER:
            return None
        self._after.append((n, ratio))
        if len(self._after) < REPLIES:
            return None
        after, self._after = self._after, []
        no_faster = median(each for _, each in after) >= self._before * (1.0 + fewer) / 2.0
        if not no_faster:
            self.window = 0.0
        return after if no_faster else None

    def end(self) -> None:
        """Give up the trial: the window has grown, or the line starts anew."""
        self.window = 0.0
        self._after.clear()
