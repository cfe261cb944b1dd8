"""Virtual time for plain threads: one runs at a time, and when all wait the clock jumps."""

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable

from penstock.runtime.waiters import ThreadWaiter, Word


class _Timer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualThreads:
    """A clock for a driver whose callers are threads that this object has started."""

    def __init__(self) -> None:
        self._now = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._ready: deque[threading.Lock] = deque()
        self._left = 0
        self._main = threading.Lock()

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], object], /) -> _Timer:
        timer = _Timer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def hold(self, span_s: float) -> None:
        """Let time pass in which nobody acts."""
        self._now += span_s

    def sleep(self, span_s: float) -> None:
        gate = _shut()
        self.call_at(self._now + span_s, lambda: self.wake(gate))
        self.wait(gate)

    def wake(self, gate: threading.Lock) -> None:
        """Let the thread that waits at a gate go on when its turn comes."""
        self._ready.append(gate)

    def wait(self, gate: threading.Lock) -> None:
        """Let others run until somebody wakes this gate."""
        self._next()
        gate.acquire()

    def run(self, at: list[tuple[float, Callable[[], None]]]) -> None:
        """Start a thread for each call at its time; return when all have ended."""
        self._left = len(at)
        for when, call in at:
            self.call_at(when, lambda call=call: self._spawn(call))  # type: ignore[misc]
        self._main.acquire()
        self._next()
        self._main.acquire()

    def _spawn(self, call: Callable[[], None]) -> None:
        gate = _shut()

        def body() -> None:
            gate.acquire()
            try:
                call()
            finally:
                self._left -= 1
                self._next() if self._left else self._main.release()

        threading.Thread(target=body, daemon=True).start()
        self.wake(gate)

    def _next(self) -> None:
        while not self._ready:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._now = max(self._now, when)
                timer.callback()
        self._ready.popleft().release()

    def waiter(self) -> ThreadWaiter:
        """Return what a sync slot is to wait with."""
        return _Waiter(self)


class _Waiter(ThreadWaiter):
    """Waits in virtual time."""

    __slots__ = ("_gate", "_threads", "_waits")

    def __init__(self, threads: VirtualThreads) -> None:
        super().__init__()
        self._threads = threads
        self._gate = _shut()
        self._waits = False

    def word(self) -> Word:
        if not self.told:
            self._waits = True
            self._threads.wait(self._gate)
        return super().word()

    def _set(self, word: Word | BaseException) -> None:
        super()._set(word)
        if self._waits:
            self._waits = False
            self._threads.wake(self._gate)


def _shut() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
