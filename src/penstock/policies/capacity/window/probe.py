"""One more beyond what is believed, now and then: is there room?"""

from dataclasses import dataclass

from penstock.core.ticket import Ticket
from penstock.policies.capacity.window.flights import Record

PAUSE, LONGEST_PAUSE = 24, 192
"""Decisions' replies between two probes: twice as many after each that found no room."""
RECORDS = 4
BRIEF_SHARE, ANYBODY_PAUSE = 0.5, 96
"""Who is served in half the mean latency comes to its turn no later inside the provider than here;
others make whoever comes after them wait, and probe only after a pause that long."""
LATENCY_WEIGHT = 0.05


@dataclass(slots=True)
class Probe:
    """Opens room for one more after a pause in replies, until records tell what came of it."""

    _latency_s: float = 1.0
    _beyond: float = 0.0
    _records: int = 0
    _replies: int = 0
    _pause: int = PAUSE

    def replied(self, latency_s: float) -> None:
        """Note how long replies take."""
        self._latency_s += LATENCY_WEIGHT * (latency_s - self._latency_s)
        self._replies += 1

    def admits(self, ticket: Ticket, in_flight: int) -> bool:
        """Say whether this one may go, if its place is one that is only probed."""
        if not self._beyond or in_flight < self._beyond:
            return True
        return self._pause > ANYBODY_PAUSE or ticket.service_p50_s <= BRIEF_SHARE * self._latency_s

    def is_due(self, settled: bool) -> bool:
        """Say whether to probe, where the window is what is believed."""
        return settled and self._replies >= self._pause

    def open(self, window: float) -> None:
        """Begin a probe beyond `window`."""
        self._beyond, self._records = window, 0

    def holds(self, record: Record, places: float, window: float) -> bool:
        """Say whether the probe goes on; ended, it sets the pause before the next."""
        if not self._beyond:
            return False
        self._records += record.in_flight > self._beyond
        if self._records < RECORDS and places <= window:
            return True
        self._pause = PAUSE if places > self._beyond else min(LONGEST_PAUSE, 2 * self._pause)
        self._beyond, self._replies = 0.0, 0
        return False
