"""One stated limit: how much was used in the last minute, and when more may be."""

import math
from collections import deque

WINDOW_S = 60.0
GUARD_S = 0.5
"""Requests do not travel equally long: what we send 60 s apart may arrive closer together."""
GRAIN_S = 0.1
RELAX_S = 22.0
FREE_SHARE = 0.5
LEAST_BURST = 4.0
LEAST_FREE_SHARE = 1.0 / 64.0
OVERSHOOT_SHARE = 0.05

Entry = list[float]
"""[grain, amount]; an amount below 0 has left the window."""


class Meter:
    """A sliding minute, in grains of `GRAIN_S`, so memory does not grow with the limit.

    Two bounds hold. Hard: what was used in the last minute never exceeds `limit`. Soft: after a
    free burst of `free_share` of the limit the rest is not spent at once but let out by an
    envelope that relaxes towards the limit,

        d envelope / dt = (limit - envelope) / RELAX_S

    and follows the use down. A full burst would be followed by silence until the minute is over,
    in which an urgent request could not go; and what is spread out stays spread out in the next
    minute. A provider that refuses nevertheless halves the free burst.

    Source:
        The sliding window log of API gateways, with its log cut into grains; the envelope is ours.

    """

    def __init__(self, limit: float) -> None:
        """Start with an empty past; inf measures nothing."""
        self.limit = limit
        self.used = 0.0
        self._free_share = FREE_SHARE
        self._envelope = 0.0
        self._at = 0.0
        self._foreign = 0.0
        self._foreign_until = -math.inf
        self._entries: deque[Entry] = deque()

    def add(self, amount: float, *, now: float) -> Entry:
        """Use `amount` now and return where it is kept, for `correct`."""
        if math.isinf(self.limit):
            return [0.0, -1.0]
        grain = math.floor(now / GRAIN_S)
        entries = self._entries
        if entries and entries[-1][0] == grain:
            entries[-1][1] += amount
        else:
            entries.append([grain, amount])
        self.used += amount
        return entries[-1]

    def correct(self, entry: Entry, reserved: float, real: float) -> None:
        """Replace a reservation by what was really used, if it is still in the window."""
        if entry[1] >= 0.0:
            entry[1] = max(0.0, entry[1] + real - reserved)
            self.used = max(0.0, self.used + real - reserved)

    def room_at(self, amount: float, *, now: float) -> float:
        """Return when to ask again: `now` if `amount` may be used now.

        A single request above the whole limit is let through when nothing else is in the
        window: the provider's answer then says what the limit really means.
        """
        if math.isinf(self.limit):
            return now
        self._forget(now)
        foreign = self._foreign if now < self._foreign_until else 0.0
        wanted = self.used + foreign + min(amount, self.limit)
        envelope = self._relax(now)
        if wanted <= envelope + 1e-9 * self.limit:
            return now
        if wanted > self.limit + 1e-9 * self.limit:
            return self._expiry_of(wanted - self.limit, foreign, now)
        goal = self._goal()
        wait_s = RELAX_S * math.log((goal - envelope) / (goal - wanted))
        return now + max(GRAIN_S / 10.0, min(wait_s, self._first_expiry_s(now)))

    def learn(
        self, limit: float, remaining: float | None, reset_s: float | None, now: float
    ) -> None:
        """Adopt a stated limit, and take what others used of it for used until its reset."""
        if limit != self.limit:
            self.limit = limit
            self._envelope = min(self._envelope, limit)
        self._forget(now)
        if remaining is None:
            return
        # What left after the header was written is in `used` already, so this errs on our side.
        self._foreign = max(0.0, limit - remaining - self.used)
        span_s = WINDOW_S if reset_s is None else min(WINDOW_S, max(0.0, reset_s))
        self._foreign_until = now + span_s

    def provoked(self) -> None:
        """Note a refusal for the rate although the minute had room: burst less."""
        self._free_share = max(LEAST_FREE_SHARE, self._free_share / 2.0)
        self._envelope = min(self._envelope, self.used)

    def _relax(self, now: float) -> float:
        free = max(min(LEAST_BURST, self.limit), self._free_share * self.limit)
        # The slack lets the envelope run one grain ahead of the use, or it could never rise.
        slack = max(1.0, self.limit * GRAIN_S / WINDOW_S)
        start = max(free, min(self._envelope, self.used + slack))
        goal = self._goal()
        relaxed = goal - (goal - start) * math.exp((self._at - now) / RELAX_S)
        self._at = now
        self._envelope = min(self.limit, relaxed)
        return self._envelope

    def _goal(self) -> float:
        return self.limit + max(1.0, OVERSHOOT_SHARE * self.limit)

    def _forget(self, now: float) -> None:
        entries = self._entries
        last = (now - WINDOW_S - GUARD_S) / GRAIN_S - 1.0
        while entries and entries[0][0] <= last:
            entry = entries.popleft()
            self.used -= entry[1]
            entry[1] = -1.0
        if not entries or self.used < 0.0:
            self.used = max(0.0, sum(entry[1] for entry in entries))

    def _first_expiry_s(self, now: float) -> float:
        if not self._entries:
            return WINDOW_S
        return (self._entries[0][0] + 1.0) * GRAIN_S + WINDOW_S + GUARD_S - now

    def _expiry_of(self, excess: float, foreign: float, now: float) -> float:
        at = math.inf
        if foreign > 0.0:
            at = self._foreign_until
        for grain, used in self._entries:
            excess -= used
            if excess <= 1e-9 * self.limit:
                return min(at, (grain + 1.0) * GRAIN_S + WINDOW_S + GUARD_S)
        return at if at < math.inf else now + WINDOW_S
