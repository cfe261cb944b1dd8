"""Measures when the driver could not act: a blocked event loop, a suspended process."""

import threading
from collections.abc import Callable

from penstock.runtime.clock import Clock
from penstock.runtime.uninterrupted import UNINTERRUPTED

PULSE_S = 0.05
"""How often a sign of life is due while anything is in flight; 20 a second cost 0.1 % of a core."""
STALL_S = 0.05
"""A sign of life that is later than this is a stall. Less is what a loop with work to do shows at
any time, and about what a reply's time differs by anyway."""


class Pulse:
    """A timer that is due every `PULSE_S`: by how much it is late, the clock's owner could not act.

    Args:
        clock: an event loop, or the clock of programs without one. Belongs to one thread, or takes
            timers from any.
        wanted: called with each beat; says whether anything is in flight. If not, the pulse stops.
        stalled: told of the clock, and how many seconds ago the last sign of life before a stall
            was, unless `stalled_s` has told it already.

    """

    __slots__ = ("_beat_at", "_beats", "_stalled", "_wanted", "clock")

    def __init__(
        self, clock: Clock, wanted: Callable[[], bool], stalled: Callable[[Clock, float], object]
    ) -> None:
        """Start when `start` is called."""
        self.clock = clock
        self._wanted = wanted
        self._stalled = stalled
        self._beat_at = 0.0
        self._beats = threading.Lock()  # held while a timer is set: several threads may start one

    def start(self) -> None:
        """Beat from now on, as long as anything is in hand; called in the clock's own thread."""
        if self._beats.locked():
            return
        with UNINTERRUPTED:
            if self._beats.acquire(blocking=False):
                self._beat_at = self.clock.time()
                self.clock.call_at(self._beat_at + PULSE_S, self._beat)

    def stalled_s(self) -> float:
        """Return how long ago the last sign of life was if a stall has just ended, else 0.

        Each stall is told once.
        """
        if not self._beats.locked():
            return 0.0
        now = self.clock.time()
        silent_s = now - self._beat_at
        if silent_s <= PULSE_S + STALL_S:
            return 0.0
        self._beat_at = now
        return silent_s

    def _beat(self) -> None:
        silent_s = self.stalled_s()
        self._beats.release()
        if silent_s:
            self._stalled(self.clock, silent_s)
        if self._wanted():
            self.start()
