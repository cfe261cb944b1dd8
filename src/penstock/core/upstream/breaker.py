"""Whether an upstream may be used now: pauses after refusals, probes after failures."""

import math

from penstock.core.events import RefusalCause

BACKOFF_BASE_S = 1.0
BACKOFF_CAP_S = 16.0
LONGEST_PAUSE_S = 60.0
"""Who has no deadline waits no longer than this."""
LONGEST_RATE_S = 600.0
"""A refusal for the rate that asks for more is a spent quota: days are how vendors say so."""
MAX_PAUSE_S = 900.0
"""No stated wait is believed for longer: a probe is cheap, a wrong wait of days is an outage."""
FAULTS_TO_OPEN = 3
SPORADIC_SHARE, SPORADIC_ANSWERS, SPORADIC_PAUSE_S = 0.25, 8, 0.25
SHARE_WEIGHT = 1.0 / 16.0
"""Overload refusals that are fewer than a quarter of what comes back stop it for a moment only."""


class Health:
    """Open, paused until a time, or on probation (one attempt at a time until one succeeds).

    - rate: pause for the stated retry-after, else back off; beyond `LONGEST_PAUSE_S` only those
      wait whose deadline allows it, and the pause ends with a probe.
    - quota, or a rate refusal with a wait beyond `LONGEST_RATE_S`: closed until then, and probed
      after it; requests must go elsewhere or fail at once, nobody sleeps for days.
    - overload, slow first token and repeated faults: exponential back-off with full jitter. A
      few overload refusals among answers stop it for a moment only, and nobody probes: where some
      are refused at any load, a pause for all after each would cost more than the refusals.
    Refusals of attempts sent before the last refusal was known are the same bad news, once.

    Source:
        Full jitter: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
        Probation: the half-open state of Nygard, "Release It!", 2007.

    """

    def __init__(self, max_pause_s: float = MAX_PAUSE_S) -> None:
        """Start healthy; no pause is longer than `max_pause_s`, whatever is asked for."""
        self.max_pause_s = max_pause_s
        self.paused_until = -math.inf
        self.exhausted_until = -math.inf
        self.closed_until = -math.inf
        """The end of a spent quota or of a long pause: not everybody may wait for it."""
        self.probation = False
        self._streak = 0
        self._faults = 0
        self._last_bad_at = -math.inf
        self._answers = 0
        self._refused_share = 0.0
        self._sporadic = False

    @property
    def troubled(self) -> bool:
        """True from a refusal until the next success."""
        return self._streak > 0

    def sound(self, now: float) -> bool:
        """Say whether nothing is known against it: what has failed elsewhere may come here."""
        return not self._streak and not self._faults and self.open_at(now) <= now

    def open_at(self, now: float) -> float:
        """Return when it may be used again; `now` if it may be now."""
        if self.paused_until <= now and self.exhausted_until <= now:
            return now
        return max(self.paused_until, self.exhausted_until)

    def exhausted(self, now: float) -> bool:
        """Say whether its quota is spent: waiting for it makes no sense."""
        return self.exhausted_until > now

    def refused(
        self,
        cause: RefusalCause,
        *,
        sent_at: float,
        retry_after_s: float | None,
        jitter: float,
        now: float,
    ) -> None:
        """Note a refused attempt."""
        wait_s = None if retry_after_s is None else min(retry_after_s, self.max_pause_s)
        sporadic = self._is_sporadic(sent_at)
        if sent_at >= self._last_bad_at:
            self._streak += 1
            self._last_bad_at = now
        if cause is RefusalCause.OVERLOAD and wait_s is None and sporadic:
            self.paused_until = max(self.paused_until, now + max(0.05, jitter * SPORADIC_PAUSE_S))
            return
        if cause is RefusalCause.QUOTA or (wait_s is not None and wait_s > LONGEST_RATE_S):
            until = now + (LONGEST_PAUSE_S if wait_s is None else wait_s)
            self.exhausted_until = max(self.exhausted_until, until)
            self.closed_until = max(self.closed_until, until)
            self.probation = True
            return
        if wait_s is None or cause is not RefusalCause.RATE:
            wait_s = max(wait_s or 0.0, self._backoff_s(jitter))
        elif self._streak > 1:  # its word was not good enough the last time
            wait_s = max(wait_s, self._backoff_s(jitter))
        self.paused_until = max(self.paused_until, now + wait_s)
        long = wait_s > LONGEST_PAUSE_S
        if long:
            self.closed_until = max(self.closed_until, now + wait_s)
        self.probation = cause is not RefusalCause.RATE or self._streak > 1 or long

    def _is_sporadic(self, sent_at: float) -> bool:
        """Say whether a refusal is one of few among answers, and count it."""
        again = sent_at >= self._last_bad_at and self._streak > 0  # nothing was answered since
        known = sent_at < self._last_bad_at and not self._sporadic
        few = self._refused_share < SPORADIC_SHARE and self._answers >= SPORADIC_ANSWERS
        self._refused_share += SHARE_WEIGHT * (1.0 - self._refused_share)
        self._sporadic = few and not again and not known
        return self._sporadic

    def failed(self, *, sent_at: float, jitter: float, now: float) -> None:
        """Note an attempt that broke on the upstream's side."""
        if sent_at < self._last_bad_at:
            return
        self._faults += 1
        if self._faults >= FAULTS_TO_OPEN:
            self._streak += 1
            self._last_bad_at = now
            self.paused_until = max(self.paused_until, now + self._backoff_s(jitter))
            self.probation = True

    def succeeded(self, *, sent_at: float) -> None:
        """Note a sign of life from an attempt that was sent after the last bad news."""
        self._answers += 1
        self._refused_share -= SHARE_WEIGHT * self._refused_share
        if sent_at >= self._last_bad_at:
            self._streak = self._faults = 0
            self.probation = False

    def _backoff_s(self, jitter: float) -> float:
        ceiling = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(self._streak - 1, 10))
        return max(0.05, jitter * ceiling)
