"""What a signal's handler must not break off half-way: a decision, a slot's end, a loop's start.

Python runs the handlers of signals in the main thread, between any two steps of whatever runs
there, and Ctrl-C's raises: at 163 of 348 places of a synchronous call it left a slot or a lock
behind.
"""

# `signal`'s own functions look for a member of an enum each time: 4 us for 0.4.
import _signal  # type: ignore[import-not-found]
import asyncio
import signal
from collections.abc import Awaitable, Callable
from threading import get_ident, main_thread
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")

_CTRL_C = int(signal.SIGINT)
_SIGNALS = tuple(
    int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name)
)
"""Those whose handlers programs let raise; where an event loop runs, Ctrl-C's alone does."""


class _Uninterrupted:
    """A block that handlers of signals wait for; entered in any thread, and within itself.

    A second signal of a kind does not wait: what hangs can be broken off.
    """

    __slots__ = ("_came", "_depth", "_handlers", "_mine")

    def __init__(self) -> None:
        self._depth = 0
        self._came: list[int] = []
        self._handlers: dict[int, Any] = {}
        self._mine = self._on_signal

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
        if self._depth or not self._handlers:
            return
        for number, handler in self._handlers.items():
            _signal.signal(number, handler)
        self._handlers = {}
        came, self._came = self._came, []
        for number in came:
            signal.raise_signal(number)

    def _hold_back(self) -> None:
        looped = asyncio._get_running_loop() is not None  # noqa: SLF001 - None where none runs
        for number in (_CTRL_C,) if looped else _SIGNALS:
            handler = _signal.getsignal(number)
            raises = handler is signal.default_int_handler if looped else callable(handler)
            if raises and handler is not self._mine:
                self._handlers[number] = handler
                try:
                    _signal.signal(number, self._mine)
                except ValueError:  # a sub-interpreter: no handler runs there
                    del self._handlers[number]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._depth and number not in self._came:
            self._came.append(number)
        else:
            self._handlers[number](number, frame)


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
