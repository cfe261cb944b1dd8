"""One thread that answers questions in time or not at all, and does chores in between."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakSet

from penstock.errors import PenstockError

T = TypeVar("T")
_CHORES_MAX = 1000


_ALL: WeakSet[Worker] = WeakSet()


class Slow(PenstockError):
    """The answer was not there in time."""


class _Question(Generic[T]):
    """One question and its answer; whoever asked may have left."""

    __slots__ = ("answer", "done", "error", "work")

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.done = threading.Lock()
        self.done.acquire()
        self.answer: T | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.answer = self.work()
        except Exception as error:  # noqa: BLE001  handed over to whoever asked
            self.error = error
        self.done.release()


class Worker:
    """A daemon thread with one place for a question and a bounded queue of chores.

    A question goes before all chores. While the thread is stuck in one, `ask` raises `Slow`
    at once: only the first caller pays the waiting time.
    """

    def __init__(self, *, name: str) -> None:
        self._name = name
        self._closed = False
        self._begin()
        _ALL.add(self)

    def _begin(self) -> None:
        self._wake = threading.Semaphore(0)
        self._questions: deque[_Question[object]] = deque()
        self._chores: deque[Callable[[], None]] = deque()
        self._late: _Question[object] | None = None
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Start another thread in a forked child, where this one's is gone."""
        if not self._closed:
            self._begin()

    def ask(self, work: Callable[[], T], *, timeout_s: float) -> T:
        """Return what `work` returns, run in the thread.

        Raises:
            Slow: it was not done within `timeout_s`, or an earlier question still is not.
            Exception: whatever `work` raised.

        """
        if self._closed or (self._late is not None and not self._is_back(self._late)):
            raise Slow("the predictor's thread has not come back from an earlier call")
        question = _Question(work)
        self._questions.append(question)  # type: ignore[arg-type]
        self._wake.release()
        if not question.done.acquire(timeout=timeout_s):
            self._late = question  # type: ignore[assignment]
            raise Slow(f"no answer within {timeout_s * 1000:.1f} ms")
        if question.error is not None:
            raise question.error
        return question.answer  # type: ignore[return-value]

    def post(self, chore: Callable[[], None]) -> bool:
        """Queue a chore, which must not raise; False if the queue is full or closed."""
        if self._closed or len(self._chores) >= _CHORES_MAX:
            return False
        self._chores.append(chore)
        self._wake.release()
        return True

    def flush(self, *, timeout_s: float) -> bool:
        """Wait until all chores queued so far are done; False if that took too long."""
        done = threading.Event()
        if not self.post(done.set):
            return False
        return done.wait(timeout_s)

    def close(self) -> None:
        """Let the thread end after what is queued."""
        self._closed = True
        self._wake.release()

    def _is_back(self, late: _Question[object]) -> bool:
        if not late.done.acquire(blocking=False):
            return False
        self._late = None
        return True

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            if self._questions:
                self._questions.popleft().run()
            elif self._chores:
                self._chores.popleft()()
            elif self._closed:
                return


def _renew_all() -> None:
    for worker in list(_ALL):
        worker.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
