"""The pace that a provider allows but does not state, learnt from what it lets pass."""

import math

CALM_S = 30.0
CALM_SENDS = 30.0
"""Refusals further apart, in time and in sends at the pace, belong to different episodes."""
FIRST_PER_S = 2.0
DOUBLING_S = 1.0
FASTEST_PER_S = 1000.0
MARGIN = 0.98
SURE_SENDS = 10
"""So many sends between two refusals give the rate within 10 %; with fewer we step down."""
LEAST_SHARE = 0.75
STEP_S = 5.0
STEP_SENDS = 10.0
FIRST_STEP = 0.01
LAST_STEP = 0.5
MOST_FUTILE = 12.0
GROWN_FUTILE = 0.25
DEAF_S = 300.0
SLIP_S = 0.02
"""A wake-up may come that late without the pace falling behind."""


class LearntRate:
    """Sends a second at one upstream that refuses and does not say what it allows.

    - First refusal: nothing is known. Sends resume one by one, at a pace that doubles in a second.
    - Further refusals: whatever bucket the provider keeps, it is empty at each of them, so what
      passed in between is what flowed in. n sends in t seconds give the rate, within 1 / t (where
      the retry-after is exact, t between the ends of the two waits gives it exactly). The pace
      becomes `MARGIN` of it and never rises by this. Less than `SURE_SENDS` tell little, dear ones
      among them even less: one such refusal trims, the next ones lower by a quarter at most.
    - While somebody waits for the pace and nothing is refused, it grows in steps that double, of
      1 % at first. Each such probe costs a refusal: one in some 25 s, or 40 sends if that is more.
    - Nothing passed since: no limit but a storm. The pace stays, and the upstream's health waits.
    - More than `MOST_FUTILE` refusals in one episode, less what growth went well: the refusals do
      not depend on our pace, and for `DEAF_S` there is none.

    Source:
        Ours. Ramp and steps are the slow start and the avoidance of Jacobson, "Congestion
        Avoidance and Control", SIGCOMM 1988.

    """

    def __init__(self) -> None:
        """Start with no limit known."""
        self.per_s = math.inf
        self._ramping = False
        self._ramp_at = 0.0
        self._refusals = 0
        self._anchor_at = -math.inf
        self._anchor_wait_s = 0.0
        self._anchor_passed = 0
        self._refused_at = -math.inf
        self._next_at = -math.inf
        self._pressed = False
        self._few = False
        self._futile = 0.0
        self._deaf_until = -math.inf
        self._step = FIRST_STEP
        self._stepped_at = -math.inf

    def open_at(self, *, now: float) -> float:
        """Return when to ask again: `now` if one may go now."""
        if self._next_at - SLIP_S <= now:
            return now
        self._pressed = True
        return self._next_at

    def is_deaf(self, *, now: float) -> bool:
        """Return whether refusals have shown that they do not depend on the pace."""
        return now < self._deaf_until

    def sent(self, *, now: float) -> None:
        """Note a send."""
        if self.per_s == math.inf:
            return
        self._next_at = max(self._next_at, now - SLIP_S) + 1.0 / self.per_s
        if self._ramping:
            self.per_s = FIRST_PER_S * 2.0 ** max(0.0, (now - self._ramp_at) / DOUBLING_S)
        elif self._pressed and now - self._stepped_at >= max(STEP_S, STEP_SENDS / self.per_s):
            self.per_s *= 1.0 + self._step
            self._step = min(LAST_STEP, 2.0 * self._step)
            self._stepped_at = now
            self._futile = max(0.0, self._futile - GROWN_FUTILE)
        self._pressed = False
        if self.per_s > FASTEST_PER_S:
            self.per_s, self._ramping = math.inf, False

    def refused(self, sent_before: int, wait_s: float, *, now: float) -> bool:
        """Note a refusal, and say whether it was for the pace: something passed before it.

        `sent_before` counts all that was ever sent before the refused one, `wait_s` is the
        retry-after, 0 if there is none.
        """
        passed = sent_before - self._refusals
        self._refusals += 1
        n = passed - self._anchor_passed
        calm = now - self._refused_at > max(CALM_S, CALM_SENDS / self.per_s)
        self._refused_at = now
        self._next_at = max(self._next_at, now + wait_s)
        if now < self._deaf_until:
            return False
        if calm:
            self._few = False
            self._futile = 0.0
            if self.per_s == math.inf:
                self._ramping, self._ramp_at = True, now + wait_s
                self.per_s = FIRST_PER_S
            else:
                self._lower(MARGIN / (1.0 + self._step / 2.0), now)
        elif n > 0 and now > self._anchor_at:
            self._measured(n, wait_s, now)
        else:
            return False
        if calm or n >= SURE_SENDS:
            self._anchor_at, self._anchor_wait_s, self._anchor_passed = now, wait_s, passed
        return not calm or not self._ramping

    def _measured(self, n: int, wait_s: float, now: float) -> None:
        """Take the rate at which n passed between two refusals, each of them one too many."""
        took_s = now - self._anchor_at
        exact_s = took_s + wait_s - self._anchor_wait_s
        rate = n / exact_s if exact_s > 0.0 else math.inf
        share = max((n - 1) / took_s, min((n + 1) / took_s, rate)) / self.per_s
        if n < SURE_SENDS:
            share = max(share, LEAST_SHARE if self._ramping or self._few else 1.0)
        elif self._ramping:
            share = max(share, LEAST_SHARE)
        self._few = n < SURE_SENDS
        self._ramping = False
        self._futile += 1.0
        if self._futile > MOST_FUTILE:
            self.per_s, self._futile, self._deaf_until = math.inf, 0.0, now + DEAF_S
        else:
            self._lower(MARGIN * min(1.0, share), now)

    def _lower(self, share: float, now: float) -> None:
        self.per_s *= share
        self._step, self._stepped_at = FIRST_STEP, now
