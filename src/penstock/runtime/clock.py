"""Clocks that a driver can be given, and a measure of when it could not act.

A blocked event loop, a suspended process: `Pulse` sees the gap.
"""

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec
from typing import Protocol

from penstock.runtime.uninterrupted import UNINTERRUPTED

logger = logging.getLogger("penstock.runtime")


class Timer(Protocol):
    """Something that was asked for and can be called off."""

    def cancel(self) -> None:
        """Call it off; harmless when it has already fired."""
        ...


class Clock(Protocol):
    """Time and one way to be called back. Every asyncio event loop is one."""

    def time(self) -> float:
        """Return the driver's time in seconds; never decreasing, its zero is arbitrary."""
        ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        """Call back at `when` or soon after it."""
        ...


class _ThreadTimer:
    """One entry of a `ThreadClock`."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


def _own_monotonic() -> Callable[[], float]:
    """Return Python's own `time.monotonic`, from a `time` that nobody else has.

    What stops the time of a test puts its clock into the other one, and no timer would fire before
    the test is over, nor after it had this been imported meanwhile.
    """
    spec = BuiltinImporter.find_spec("time")
    assert spec is not None
    module = module_from_spec(spec)
    BuiltinImporter.exec_module(module)
    monotonic: Callable[[], float] = module.monotonic
    return monotonic


class ThreadClock:
    """The monotonic clock, with call-backs from one daemon thread that starts when first needed.

    asyncio's loops read the same clock, so a driver may be told by loops and threads alike.
    """

    _monotonic = staticmethod(_own_monotonic())

    def __init__(self) -> None:
        """Start nothing yet."""
        self._ending = False
        self.renew()

    def renew(self) -> None:
        """Forget all timers: in a forked child their thread is gone and its lock may be held."""
        self._order = itertools.count()
        self._heap: list[tuple[float, int, _ThreadTimer]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def time(self) -> float:
        """Return `time.monotonic()`, in seconds."""
        if self._thread is None and self._heap:  # the system had no thread to give
            with self._changed:
                self._start()
        return self._monotonic()

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        """Call back at `when`, from the clock's own thread."""
        timer = _ThreadTimer(callback)
        with self._changed:
            heapq.heappush(self._heap, (when, next(self._order), timer))
            if self._thread is None:
                self._start()
            elif self._heap[0][2] is timer:
                self._changed.notify()
        return timer

    def _start(self) -> None:
        """Start the thread; where the system has none to give, the next event tries again."""
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name="penstock-clock", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            logger.warning("no thread can be started: timers wait for one", exc_info=True)
        else:
            self._thread = thread

    def end(self) -> None:
        """Let the thread end as soon as nothing is asked for any more; later timers start it anew.

        What was called off is forgotten: it would hold the thread until it was due.
        """
        with self._changed:
            self._ending = True
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._changed.notify()

    def _run(self) -> None:
        while (timer := self._next_due()) is not None:
            if timer.callback is not None:
                try:
                    timer.callback()
                except Exception:  # the thread serves everybody: it must outlive any callback
                    logger.exception("a timer's callback failed")

    def _next_due(self) -> _ThreadTimer | None:
        """Wait for the next timer that is due; None once the thread is to end."""
        with self._changed:
            while True:
                wait_s = self._heap[0][0] - self._monotonic() if self._heap else None
                if wait_s is None and self._ending:
                    self._thread = None
                    return None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(None if wait_s is None else min(wait_s, threading.TIMEOUT_MAX))


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
