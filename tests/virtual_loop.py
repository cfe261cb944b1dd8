"""An asyncio loop whose clock jumps to the next timer instead of sleeping.

With it a test of an hour's traffic takes milliseconds and gives the same result each time.
"""

import asyncio
import math
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    """Never sleeps: where asyncio would wait for a timer, it moves the loop's clock there."""

    def __init__(self, grace_s: float) -> None:
        super().__init__()
        self._grace_s = grace_s
        self.loop: VirtualLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout == 0 else self._grace_s)
        if ready or timeout == 0 or self.loop is None:
            return ready
        if timeout is None:
            # Nothing is scheduled: only a file descriptor (another thread's call) can wake us.
            return super().select(None)
        self.loop.jump()
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that starts at time 0 and jumps.

    Args:
        grace_s: real seconds in which bytes may still arrive before the clock jumps. Zero is right
            without sockets; between sockets of the same loop a millisecond is enough.

    """

    def __init__(self, *, grace_s: float = 0.0) -> None:
        """Start at 0 seconds."""
        selector = _JumpingSelector(grace_s)
        self._virtual_now = 0.0
        super().__init__(selector)
        selector.loop = self

    @property
    def _clock_resolution(self) -> float:
        """Keep two timers that are less than a nanosecond apart from firing together."""
        return math.ulp(self._virtual_now)

    @_clock_resolution.setter
    def _clock_resolution(self, value: float) -> None:
        """Ignore what asyncio measures of the real clock."""

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual_now

    def hold(self, span_s: float) -> None:
        """Let time pass as a blocking call does: nothing else of the loop runs meanwhile."""
        self._virtual_now += span_s

    def jump(self) -> None:
        """Move to the exact time of the next timer, so that no rounding creeps in."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if timers:
            self._virtual_now = max(self._virtual_now, timers[0].when())


def run_virtual(main: Coroutine[Any, Any, T], *, grace_s: float = 0.0) -> T:
    """Run a coroutine to its end on a fresh `VirtualLoop` and return its result."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(grace_s=grace_s)) as runner:
        return runner.run(main)
