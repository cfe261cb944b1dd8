"""Other than the believed number in flight, for a while: one more for room, half for the speed."""

import math
from dataclasses import dataclass

from penstock.core.ticket import Ticket
from penstock.policies.capacity.window.flights import Record

PAUSE, LONGEST_PAUSE = 24, 192
"""Replies between two probes: twice as many after each that found no room."""
PROBE_RECORDS = 5
BRIEF_SHARE, ANYBODY_AFTER = 0.5, 48
"""Who is served in half the mean latency comes to its turn no later inside the provider than here;
others make whoever comes after them wait, and probe only if so many replies saw too few brief."""
LATENCY_WEIGHT = 0.05
CROWDED = 0.6
"""If every reply so far flew among more than this share of a window that is believed shared, or of
one before which requests queue among more than all of it, ..."""
TRIAL_RECORDS = 3
"""... half of the window flies until so many did."""


@dataclass(slots=True)
class Probe:
    """Lets one more fly beyond the window after a pause in replies, until records tell of it.

    The window itself stays at first: what is kept for urgent requests is kept below it.

    Attributes:
        extra: how many brief requests may fly beyond the window.
        beyond: the window that is probed; infinite while none is.

    """

    extra: float = 0.0
    beyond: float = math.inf
    _latency_s: float = 1.0
    _records: int = 0
    _replies: int = 0
    _pause: int = PAUSE

    def replied(self, latency_s: float) -> None:
        """Note how long replies take."""
        self._latency_s += LATENCY_WEIGHT * (latency_s - self._latency_s)
        self._replies += 1

    def admits(self, ticket: Ticket) -> bool:
        """Return whether this one may fly beyond the window."""
        return ticket.service_p50_s <= BRIEF_SHARE * self._latency_s

    def is_due(self) -> bool:
        """Return whether to probe, where the window is in use and what is believed."""
        return self.beyond == math.inf and self._replies >= self._pause

    def open(self, window: float) -> None:
        """Begin a probe with brief requests only."""
        self.extra, self.beyond = max(1.0, window // 16), window
        self._records = self._replies = 0

    def lacks_brief(self) -> bool:
        """Return whether too few brief requests came: then anybody may go."""
        return self.extra > 0.0 and self._replies >= ANYBODY_AFTER

    def saw(self, record: Record) -> None:
        """Count what flew beyond; after enough of it there is no room, for twice as long."""
        if record.in_flight > self.beyond:
            self._records += 1
            if self._records >= PROBE_RECORDS:
                self._pause = min(LONGEST_PAUSE, 2 * self._pause)
                self.end()

    def found_room(self) -> None:
        """Probe again soon."""
        self._pause = PAUSE

    def end(self) -> None:
        """Let nobody fly beyond the window."""
        self.extra, self.beyond, self._replies = 0.0, math.inf, 0


@dataclass(slots=True)
class Trial:
    """Halves the window where all replies so far were crowded: nothing else tells its speed.

    Replies of a provider that shares are all alike slow then, and the line through them takes the
    crowd for its speed. A window that shrank below all that was seen asks again. First tokens alone
    ask nothing: long streams would hold everybody up until the first of them end.

    Attributes:
        fewest: mean number in flight of the least crowded reply so far.
        few: how many may fly while it is open.

    """

    fewest: float = math.inf
    few: float = math.inf
    _window: float = math.inf
    _since: float = 0.0
    _records: int = 0

    @property
    def is_open(self) -> bool:
        """Whether fewer fly at the moment."""
        return self.few < math.inf

    def limit(self, record: Record, window: float, *, shared: bool, now: float) -> float:
        """Take in a record; return how many may fly from now on.

        In a queue, where no place is `shared`, whoever flew within the window shows its speed.
        """
        self.fewest = min(self.fewest, record.mean_in_flight)
        if self.is_open:
            self._records += record.sent_at >= self._since
            if self._records >= TRIAL_RECORDS:
                self.few = math.inf
                return self._window
        elif window > 1.0 and self.fewest > (CROWDED if shared else 1.0) * window:
            self.few, self._window = window // 2.0, window
            self._since, self._records = now, 0
        return min(window, self.few)
