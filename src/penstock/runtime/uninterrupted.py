"""What a signal's handler must not break off half-way: a decision, a slot's end, a loop's start.

Python runs the handlers of signals in the main thread, between any two steps of whatever runs
there, and Ctrl-C's raises: at 163 of 348 places of a synchronous call it left a slot or a lock
behind.
"""

# `signal`'s own functions look for a member of an enum each time: 4 us for 0.4.
import _signal  # type: ignore[import-not-found]
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from threading import get_ident, main_thread
from types import FrameType
from typing import TypeVar

_T = TypeVar("_T")
Handler = Callable[[int, FrameType | None], object]

_SIGNALS = tuple(
    int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name)
)
"""Those whose handlers programs let raise."""


class _Uninterrupted:
    """A block that handlers of signals wait for; entered in any thread, and within itself.

    A second signal of a kind does not wait: what hangs can be broken off.
    """

    __slots__ = ("_came", "_depth", "_mine")

    def __init__(self) -> None:
        self._depth = 0
        self._came: list[int] = []
        self._mine: dict[int, partial[None]] = {}
        """What stands in for the last handler of each signal; a program may have found it there
        and set it again, so that it serves that one for ever."""

    def __enter__(self) -> None:
        if get_ident() != main_thread().ident:
            return
        if not self._depth:
            self._hold_back()
        self._depth += 1  # the last step: a handler that raises before it leaves nothing behind

    def __exit__(self, *_error: object) -> None:
        if get_ident() != main_thread().ident:
            return
        self._depth -= 1
        if self._depth:
            return
        for number, mine in self._mine.items():
            if _signal.getsignal(number) is mine:  # else an observer has set another
                _signal.signal(number, mine.args[0])
        if self._came:
            self._make_up(sys._getframe(1))  # noqa: SLF001 - where the handler would have run

    def _hold_back(self) -> None:
        for number in _SIGNALS:
            handler, mine = _signal.getsignal(number), self._mine.get(number)
            if handler is mine or not callable(handler):
                continue
            if mine is None or mine.args[0] is not handler:
                mine = self._mine[number] = partial(self._on_signal, handler)
            try:
                _signal.signal(number, mine)
            except ValueError:  # a sub-interpreter: no handler runs there
                return

    def _make_up(self, frame: FrameType) -> None:
        """Call the handlers that waited; of one sent anew an event loop would be told twice."""
        number = self._came.pop(0)
        try:
            if callable(handler := _signal.getsignal(number)):
                handler(number, frame)
        finally:
            if self._came:
                self._make_up(frame)

    def _on_signal(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        if self._depth and number not in self._came:
            self._came.append(number)
        else:
            handler(number, frame)


UNINTERRUPTED = _Uninterrupted()


def run_loop(work: Callable[[], Awaitable[_T]]) -> _T:
    """Run `work` as `asyncio.run` does; signals wait until it runs, and once it has ended.

    A handler that raises while `asyncio.run` builds its loop or takes it apart leaves half-built
    objects, which print tracebacks when they are collected; a cancellation there is lost.
    """
    before = _block()
    try:
        return asyncio.run(_hearing(work, before))
    finally:
        _restore(before)


async def _hearing(work: Callable[[], Awaitable[_T]], before: set[signal.Signals]) -> _T:
    _restore(before)
    try:
        return await work()
    finally:
        _block()


def _block() -> set[signal.Signals]:
    """Return the signals that were blocked; Windows blocks none."""
    if not hasattr(signal, "pthread_sigmask"):
        return set()
    return signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # type: ignore[return-value]


def _restore(before: set[signal.Signals]) -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
