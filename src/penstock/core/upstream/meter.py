"""One stated limit: how much was used in the window, and when more may be."""

import math
from collections import deque

MINUTE_S, DAY_S = 60.0, 86_400.0
GUARD_SHARE, GRAIN_SHARE = 1.0 / 120.0, 1.0 / 600.0
"""Of the window: half a second and a tenth of a second of a minute.
Requests do not travel equally long: what we send 60 s apart may arrive closer together."""
LEAST_BURST_S = 1.0
PATIENCE_S = 0.01
FADE_S = 5.0
"""A limit that replies have not stated for so long is none: providers state it with each. What a
cache or another endpoint answers may come between."""
DOUBT_S = 2.0
"""So long is believed what one answer alone says against those before; then one more request asks.
As soon as a closed circuit is probed (`PROBE_GAP_S`): the figures may be of a refusal."""

Entry = list[float]
"""[when it leaves the window, amount]; an amount below 0 has left."""


class Meter:
    """A sliding window in 600 grains, so memory does not grow with the limit.

    The strictest of three rules holds:

    - Hard: what was used in the window never exceeds the limit.
    - Pace: who is not the most urgent leaves `keep` of the limit's pace for the time until the
      oldest use leaves the window. A full burst would be followed by silence in which nobody
      could go; and what is spread out once stays spread out in the next one.
    - Word: where the provider tells what is left, that much and what has flowed back since
      (limit / 60 a second, to the most it ever said was left) minus what was sent since. Where
      it tells nothing but has refused, a bucket of so many seconds' worth, halved at each
      refusal down to one second.

    A stated limit is forgotten `FADE_S` after a reply stated it last, if one that was sent since
    does not: one stray header would hold for ever. One that is tighter than what the replies before
    stated is doubted until a second answer states it: meanwhile it lets one request through after
    `DOUBT_S`, and one each `FADE_S`, or nothing would go that could be silent on a stray limit.

    Source:
        The sliding window log of API gateways, with its log cut into grains; the bucket is that
        of RFC 2697; the pace is ours.

    """

    def __init__(self, limit: float, window_s: float = MINUTE_S) -> None:
        """Start with an empty past; a limit of inf measures nothing."""
        self.limit = limit
        self.window_s = window_s
        self.used = 0.0
        self._ours = limit
        self._theirs = math.inf
        self._entries: deque[Entry] = deque()
        self._left = math.nan
        self._left_at = 0.0
        self._fullest = 0.0
        self._word = math.nan
        self._word_at = 0.0
        self._burst_s = math.inf
        self._stated_at = math.inf
        self._silent = False
        self._undoubted = math.inf
        self._doubted_until = math.inf

    def add(self, amount: float, *, now: float) -> Entry:
        """Count `amount` as used now; return the entry that holds it, for `correct`."""
        if math.isinf(self.limit):
            return [0.0, -1.0]  # as if it had left already: nothing is measured
        if self._doubted_until < math.inf:
            self._doubted_until = now + FADE_S
        if not math.isnan(self._left):
            # Owed is a minute at most, as whatever was used leaves the window after one.
            self._left = max(-self.limit, self._left_now(now) - amount)
            self._left_at = now
        # All that is used within a grain leaves together: a window, and the guard, after its end.
        grain_s = self.window_s * GRAIN_SHARE
        grain_ends_at = (math.floor(now / grain_s) + 1.0) * grain_s
        leaves_at = grain_ends_at + self.window_s * (1.0 + GUARD_SHARE)
        if not self._entries or self._entries[-1][0] < leaves_at:
            self._entries.append([leaves_at, 0.0])
        entry = self._entries[-1]
        entry[1] += amount
        self.used += amount
        return entry

    def correct(self, entry: Entry, reserved: float, real: float) -> None:
        """Replace a reservation by what was really used, if it is still in the window."""
        if entry[1] >= 0.0:
            entry[1] = max(0.0, entry[1] + real - reserved)
            self.used = max(0.0, self.used + real - reserved)

    def room_at(self, amount: float, likely: float, keep: float, *, now: float) -> float:
        """Return when to ask again: `now` if `amount` may be used now.

        `likely` (a p90) must fit what the provider says is left: it refuses by the real length,
        and its refusal would hold up everybody. `keep` is a share of the limit's pace, in [0, 1).
        A single request above the whole limit is let through when nothing else is in the
        window: the provider's answer then says what the limit really means.
        """
        if self._fades_at <= now:
            self._unlearn(now)
        if math.isinf(self.limit):
            return now
        at = min(self._room_at(amount, likely, keep, now), self._fades_at)
        if at <= now or self._doubted_until == math.inf:
            return at
        over = self.used + min(amount, self._ours) - self._ours
        ours_at = self._expiry_of(over) if over > 1e-9 * self._ours else now
        return min(at, max(ours_at, self._doubted_until, now))

    @property
    def _fades_at(self) -> float:
        return self._stated_at + FADE_S if self._silent else math.inf

    def replied(self, sent_at: float) -> None:
        """Note a reply to what was sent then: it has stated the limit anew, or is silent on it."""
        self._silent = self._silent or sent_at >= self._stated_at

    def _unlearn(self, now: float) -> None:
        """Go by the configured limit alone."""
        self._stated_at, self._silent, self._theirs = math.inf, False, math.inf
        self._doubted_until = math.inf
        self._left = self._word = math.nan
        self._go_by_the_tighter(now)

    def _room_at(self, amount: float, likely: float, keep: float, now: float) -> float:
        self._forget(now)
        wanted = self.used + min(amount, self.limit)
        if wanted > self.limit * (1.0 + 1e-9):
            return self._expiry_of(wanted - self.limit)
        per_s = self.limit / self.window_s
        at = now
        if keep > 0.0 and self._entries:
            free_at = self._entries[0][0]
            # This one request may dip into what is kept, or a limit of two would act as one.
            short = self.used + keep * per_s * (free_at - now) - self.limit
            if short > 1e-9 * self.limit:
                at = min(free_at, now + max(PATIENCE_S, short / (keep * per_s)))
        if self._left == self._left:  # not nan: there is a word to keep
            missing = min(likely, self._fullest) - self._left_now(now)
            if missing > 1e-6:
                at = max(at, now + max(PATIENCE_S, missing / per_s))
        return at

    def reconfigure(self, limit: float, *, now: float) -> None:
        """Measure by another configured limit; what was used stays used."""
        if limit != self._ours:
            self._ours = limit
            self._go_by_the_tighter(now)

    def learn(
        self, limit: float, remaining: float | None, *, now: float, answered: bool = False
    ) -> None:
        """Adopt a limit that the provider states, never looser than the configured one.

        `remaining` is what is left of it: others may use the same account. Where ours is the
        tighter, that says nothing. `answered` says that there were replies before.
        """
        self._doubt(limit, now, answered=answered)
        self._theirs = limit
        self._stated_at, self._silent = now, False
        self._go_by_the_tighter(now)
        if remaining is not None and limit <= self._ours:
            remaining = min(remaining, limit)  # more than all is left of nothing
            self._burst_s = math.inf
            self._left, self._left_at = remaining, now
            self._word, self._word_at = remaining, now
            # A bucket of one request says "0 left" after every reply, which is not what it holds.
            self._fullest = max(1.0, self._fullest, remaining)

    def _doubt(self, limit: float, now: float, *, answered: bool) -> None:
        """Doubt a limit that is tighter than what the replies before stated; twice it is said."""
        doubts = self._doubted_until < math.inf
        if not doubts:
            self._undoubted = self._theirs
        anew = answered and limit < self._undoubted
        self._doubted_until = now + DOUBT_S if anew and not doubts else math.inf

    def _go_by_the_tighter(self, now: float) -> None:
        """Go by the configured limit or the stated one, whichever is less."""
        limit = min(self._ours, self._theirs)
        if not math.isnan(self._left):  # what flowed back did so at the old pace; owed is a minute
            self._left, self._left_at = max(-limit, self._left_now(now)), now
        self.limit = limit
        self._fullest = min(self._fullest, max(1.0, limit))

    def said(self, *, now: float) -> float:
        """Return what is left by the provider's last word, sends since not counted; else inf."""
        if math.isinf(self.limit) or self._word != self._word:
            return math.inf
        return min(self._fullest, self._word + self.limit / self.window_s * (now - self._word_at))

    def provoked(self, *, now: float) -> None:
        """Note a refusal for the rate although we thought that there was room: burst less."""
        if math.isinf(self.limit) or self._word == self._word:
            return  # the provider has told what is left: the next word will be right
        self._burst_s = max(LEAST_BURST_S, min(self.window_s, self._burst_s) / 2.0)
        self._fullest = max(1.0, self._burst_s * self.limit / self.window_s)
        self._left, self._left_at = 0.0, now

    def _left_now(self, now: float) -> float:
        flown = self.limit / self.window_s * (now - self._left_at)
        return min(self._fullest, self._left + flown)

    def _forget(self, now: float) -> None:
        entries = self._entries
        while entries and entries[0][0] <= now:
            entry = entries.popleft()
            self.used -= entry[1]
            entry[1] = -1.0
        if not entries or self.used < 0.0:
            self.used = max(0.0, sum(entry[1] for entry in entries))

    def _expiry_of(self, excess: float) -> float:
        for leaves_at, used in self._entries:
            excess -= used
            if excess <= 1e-9 * self.limit:
                return leaves_at
        return math.inf
