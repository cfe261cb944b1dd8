"""A smaller window as a trial: where it makes replies no faster, they were not late for waiting."""

from collections import deque
from collections.abc import Collection
from statistics import median

REPLIES, LEAST_REPLIES = 8, 4
FEWER = 0.75
"""A window at most so much of what it was, with so much fewer in flight, tells whether fewer are
faster."""


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
        self._recent: deque[tuple[float, float]] = deque(maxlen=REPLIES)
        self._after: list[tuple[float, float]] = []
        self._before: tuple[float, float] | None = None
        self.is_open = False
        self.window = 0.0
        self.excess = 0.0
        self._since = 0.0

    def shrunk(self, window: float, excess: float, now: float) -> None:
        """Note that the window was `window` until now, and by how much a reply was late."""
        self._since = now
        self._after.clear()
        if self.is_open:
            self.excess = max(self.excess, excess)
            return
        self.is_open = True
        self.window, self.excess = window, excess
        self._before = _medians(self._recent) if len(self._recent) >= LEAST_REPLIES else None

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
        self._recent.append((n, ratio))
        if self._before is None or sent_at < self._since or n > limit:
            return None
        if limit > FEWER * self.window:
            return None
        self._after.append((n, ratio))
        if len(self._after) < REPLIES:
            return None
        after, self._after = self._after, []
        before_n, before = self._before
        after_n, now = _medians(after)
        # The window may have been far from full: what counts is how many flew.
        fewer = after_n / before_n
        no_faster = fewer <= FEWER and now >= before * (1.0 + fewer) / 2.0
        if not no_faster:
            self.end()
        return after if no_faster else None

    def end(self) -> None:
        """Give up the trial: the window has grown, or the line starts anew."""
        self.is_open = False
        self._before = None
        self._after.clear()


def _medians(seen: Collection[tuple[float, float]]) -> tuple[float, float]:
    """Return the median of each of the two."""
    return median(n for n, _ in seen), median(ratio for _, ratio in seen)
