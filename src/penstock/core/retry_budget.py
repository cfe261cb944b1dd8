"""How many attempts beyond the first may be made of what one lane was asked for."""

from collections import deque

WINDOW_S = 60.0
ALWAYS = 3
ELSEWHERE_SHARE = 0.5


class RetryBudget:
    """Repeated attempts in the last minute, as a share of the requests that arrived in it.

    Retries that nobody limits turn a moment of overload into a lasting one. At least `ALWAYS`
    are allowed in a minute for each upstream, or a lone request could never be tried again.

    A broken attempt that goes to another upstream, one that is sound as far as we know, adds
    nothing to the sick one's trouble, and its own purse is wider: `ELSEWHERE_SHARE` of the
    requests. Where everything breaks no upstream is sound, and nobody goes anywhere.

    Source:
        Retry budgets: Beyer et al., "Site Reliability Engineering", 2016, chapter 21.

    """

    def __init__(self, share: float, upstreams: int = 1) -> None:
        """Start with nothing seen; `share` is retries per request."""
        self.share = share
        self._always = ALWAYS * upstreams
        self._arrivals: deque[float] = deque()
        self._retries: deque[float] = deque()
        self._elsewhere: deque[float] = deque()

    def arrived(self, now: float) -> None:
        """Count a client's request."""
        arrivals = self._arrivals
        arrivals.append(now)
        while arrivals[0] <= now - WINDOW_S:
            arrivals.popleft()

    def next_at(self, *, now: float) -> float:
        """Return when a retry may be made: `now`, or when an earlier one leaves the window."""
        self._forget(now)
        allowed = max(self._always, int(self.share * len(self._arrivals)))
        spent = len(self._retries)
        return now if spent < allowed else self._retries[spent - allowed] + WINDOW_S

    def spend(self, *, now: float) -> None:
        """Count a retry that is made now."""
        self._retries.append(now)

    def may_go_elsewhere(self, *, now: float) -> bool:
        """Return whether a broken attempt may be made again at another upstream."""
        self._forget(now)
        allowed = max(self._always, int(ELSEWHERE_SHARE * len(self._arrivals)))
        return len(self._elsewhere) < allowed

    def go_elsewhere(self, *, now: float) -> None:
        """Count an attempt that is made again at another upstream."""
        self._elsewhere.append(now)

    def _forget(self, now: float) -> None:
        for times in (self._arrivals, self._retries, self._elsewhere):
            while times and times[0] <= now - WINDOW_S:
                times.popleft()
