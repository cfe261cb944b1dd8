"""A window that grows while nothing waits: by ramps at first, by single probes later."""

import math

from penstock.core.ticket import Ticket

LEAST_WINDOW, LEAST_STEP, MOST_STEP = 4.0, 2.0, 4.0
STEP_FROM, STEP_SHARE, RAMP_SHARE = 8.0, 0.5, 0.1
"""In the first ramp any class may fly 2 above what is confirmed, from 8 on half of what is above
8 more, up to 4, and at least a tenth ..."""
GROWTH = 1.5
"""... and quick ones half without a bound: a long one's place cannot be taken back."""
LATER_LEAST_STEP, LATER_STEP_SHARE = 2.0, 0.125
"""In later ramps, which set out from a level that once was too high, everybody an eighth."""
PROBE_SHARE = 1.0 / 16.0
FIRST_PROBE_S, LONGEST_PROBE_S, LEAST_LONGEST_S = 1.0, 16.0, 4.0
LONG_PROBE_RATIO = 2.0
"""Long ones probe after so many such pauses."""
BRIEF_SHARE = 0.5
FEW = 1.0
"""Where so few are served at once, one too many doubles everybody's wait: probe with care."""
WIDE_AFTER_S, WIDE_AGAIN_S, WIDE_S, WIDE_FEW_RATIO = 55.0, 15.0, 5.0, 4.0
"""Where probes were open for so long (after one that went well, so long) and taught nothing, they
may also use the room kept free: the brief for so long, then for as long all others too. Fewer
places than the last number are disturbed less often."""
PRESSED_S, PATIENT_LATENCIES = 10.0, 4.0
"""... if within the last 10 s somebody who had used up half of its slack was sent; without a
deadline, who had waited four mean latencies."""


class GrowingWindow:
    """Who may fly: up to a limit, and beyond it whoever ramps or probes.

    A subclass says what the limit is: `_set`, `_ramp_from`, and when probes may begin.

    Attributes:
        window: requests that may be in flight, as others see it; the room that is kept free may
            be probed too now and then, and then it is more than the limit.

    Source:
        Ours. Growing by what is confirmed: slow start, Jacobson, SIGCOMM 1988.

    """

    def __init__(self, start: float) -> None:
        """Start with a guess that holds until something is confirmed."""
        self.window = float(int(start))
        self.because = "start"
        self.evidence: dict[str, float] = {}
        self._limit = self.window
        self._latency_s = 1.0
        # Ramping: nothing has waited yet at the level that is confirmed.
        self._ramping = self._first_ramp = True
        self._confirmed = 0.0
        self._ramp_room = 0.0
        # Probing: one more than the limit now and then.
        self._probing = False
        self._probe_at = 0.0
        self._probe_wait_s = FIRST_PROBE_S
        self._passed_over = False
        self._wide_at = WIDE_AFTER_S
        self._pressed_at = self._brief_at = -math.inf

    def is_open(self, in_flight: int, *, now: float) -> bool:
        """Say whether anybody may fly besides those that do."""
        self._passed_over = False
        if not self._ramping and now >= self._probe_at:
            self._open_probe(now)
        return in_flight < self._most()

    def admits(self, ticket: Ticket, in_flight: int, *, now: float) -> bool:
        """Say whether this one fits, or may probe; asked in the order of the queue."""
        wide = self.window > self._limit
        brief = self._is_brief(ticket)
        if in_flight < self._limit:
            # Never with nothing in flight: no event would come to let the request go later.
            kept = wide and in_flight >= max(1.0, self._limit - 1.0)
            return brief or not kept or now >= self._wide_at + WIDE_S
        if in_flight >= self._most() or self._passed_over:
            return False
        # Nobody probes past one that cannot bear it: it would wait for the probe's end too.
        self._passed_over = not self._bears(ticket, brief=brief, wide=wide, now=now)
        return not self._passed_over

    def _bears(self, ticket: Ticket, *, brief: bool, wide: bool, now: float) -> bool:
        """Say whether a request can bear what its probe may cost.

        A brief one's turn comes no later inside the provider than here; what it must bear is
        that all become slower by one. A long one makes whoever comes after it wait as well: it
        probes less often, and in front of few places only where nobody brief does.
        """
        few = self._limit <= FEW
        slack_s = ticket.latest_start - now
        nobody_brief = now > self._brief_at + max(PRESSED_S, PATIENT_LATENCIES * self._latency_s)
        if wide and slack_s < 0.0:  # late already: where all are, nobody else could ever probe
            return brief or few or (nobody_brief and now >= self._wide_at + WIDE_S)
        if brief:
            # In front of a single place one more doubles the wait.
            return slack_s >= (self._latency_s if few else ticket.service_p50_s) / self._limit
        if few or wide:
            return False
        again_at = self._probe_at + LONG_PROBE_RATIO * self._probe_wait_s
        seldom = self._limit > LEAST_WINDOW and now >= again_at
        return (nobody_brief or seldom) and slack_s >= self._latency_s / self._limit

    def _is_brief(self, ticket: Ticket) -> bool:
        return ticket.service_p50_s <= BRIEF_SHARE * self._latency_s

    def _most(self) -> float:
        """Return how many may fly at all, those that ramp or probe included."""
        if self._ramping:
            return self._limit + self._ramp_room
        return self._limit + self._probe_room() if self._probing else self._limit

    def _probe_room(self) -> float:
        return 1.0 + self._limit * PROBE_SHARE // 1.0

    def _open_probe(self, now: float) -> None:
        self._probing = True
        self.because, self.evidence = "probe", {}
        self.window = self._limit
        if now < self._wide_at or now > self._pressed_at + PRESSED_S:
            return
        if now < self._wide_at + 2.0 * WIDE_S:
            # As many as may probe, and one for the room that the allocation keeps free.
            self.window += 1.0 + self._probe_room()
        else:
            self._wide_at = now + self._wide_after_s()

    def _set(self, limit: float) -> None:
        self.because = "grew" if limit > self._limit else "shrank"
        self._limit = self.window = max(1.0, float(int(limit)))
        self._probing = False

    def _ramp_from(self, confirmed: float) -> None:
        self._ramping = True
        self._confirmed = confirmed
        if self._first_ramp:
            more = max(0.0, confirmed - STEP_FROM) * STEP_SHARE // 1.0
            step = max(min(MOST_STEP, LEAST_STEP + more), confirmed * RAMP_SHARE // 1.0)
            quick = max(confirmed + LEAST_STEP, GROWTH * confirmed // 1.0)
        else:
            step = max(LATER_LEAST_STEP, confirmed * LATER_STEP_SHARE // 1.0)
            quick = confirmed + step
        self._set(max(LEAST_WINDOW, confirmed + step))
        self._ramp_room = max(0.0, quick - self._limit)

    def _sent(self, ticket: Ticket, *, now: float) -> None:
        """Note who was pressed, and who was brief."""
        waited_s = now - ticket.request.arrived_at
        if waited_s > min(ticket.latest_start - now, PATIENT_LATENCIES * self._latency_s):
            self._pressed_at = now
        if self._is_brief(ticket):
            self._brief_at = now

    def _grew(self, *, at: float) -> None:
        """Note that more than the limit were served: probe again at once."""
        self._probe_at = at
        self._wide_at = at + WIDE_AGAIN_S
        self._probe_wait_s = FIRST_PROBE_S

    def _probe_later(self, *, now: float, failed: bool) -> None:
        """Put off the next probe, twice as long after one that failed."""
        if failed:
            longest_s = min(LONGEST_PROBE_S, max(LEAST_LONGEST_S, 4.0 * self._latency_s))
            self._probe_wait_s = min(longest_s, 2.0 * self._probe_wait_s)
        self._probe_at = now + self._probe_wait_s
        self._wide_at = self._probe_at + self._wide_after_s()

    def _wide_after_s(self) -> float:
        """Return the pause before the kept room is probed; a single place is disturbed less."""
        return WIDE_AFTER_S * max(1.0, WIDE_FEW_RATIO / self._limit)
