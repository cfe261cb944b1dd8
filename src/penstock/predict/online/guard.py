"""The predictor may fail in any way: the request goes on, with its class's table value."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet

from penstock.core.model import TokenEstimate
from penstock.errors import PenstockError
from penstock.predict.features.call import CallFeatures
from penstock.predict.online.predictor import ModelCopy, OnlinePredictor
from penstock.predict.online.stats import PredictorStats

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


_SLOW_MAX = 3
_REST_S = 1.0
READ_PER_S = 10.0
"""So many calls a second are read and learnt from although their length decides nothing: a read, a
prediction and a lesson take 0.5 ms of CPU together, so that is half a percent of a core."""


class TokenPredictor(Protocol):
    """Estimates the output tokens of a call, and learns from its reply."""

    def predict(self, call: CallFeatures) -> TokenEstimate:
        """Return the estimate of all output tokens of the call."""
        ...

    def learn(self, call: CallFeatures, output_tokens: int) -> None:
        """Take note of how many output tokens the reply really had."""
        ...


@dataclass(slots=True)
class GuardCounts:
    """What the guard saw since the start; all only grow.

    Attributes:
        predicted: estimates that came from the predictor.
        usual: those that are what replies of the call's kind usually have.
        fallbacks: estimates that did not, by cause: "raised", "slow", "invalid", "stale", "off".
        learned: replies that the predictor learned from.
        learn_failures: replies it raised on, or that found its queue full.
        last_error: type and text of the last exception, "" if none.

    """

    predicted: int = 0
    usual: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)
    learned: int = 0
    learn_failures: int = 0
    last_error: str = ""


class GuardedPredictor:
    """A predictor that always answers, within its time budget.

    A predictor of unknown kind runs in one thread of its own, which also does the learning. A
    prediction that is not there after `budget_s` is abandoned and the fallback stands; until
    that thread is back, every call falls back at once, without waiting.

    `OnlinePredictor` does a bounded amount of work and no I/O, so it runs where it is called,
    which saves 50 to 100 us of changing threads; one thread at a time, under a lock that
    is waited for no longer than the budget. Should it get slow all the same (a starved machine),
    three slow answers in a row rest it for a second.
    """

    def __init__(
        self,
        predictor: TokenPredictor | None,
        *,
        budget_s: float = 0.004,
        stale_after_s: float = 3600.0,
        threaded: bool | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Guard a predictor; None means that every estimate is the fallback ("off").

        Args:
            predictor: used by the guard only, from now on.
            budget_s: longest wait for an estimate.
            stale_after_s: the predictor is out of date when replies have come in for so long
                without one that it learned from.
            threaded: whether it gets a thread; None: unless it is penstock's own.
            clock: monotonic seconds.

        """
        self.counts = GuardCounts()
        self.stats = PredictorStats()
        self._predictor = predictor
        self._budget_s = budget_s
        self._stale_after_s = stale_after_s
        self._clock = clock
        self._unlearned_since: float | None = None
        self._slow_in_a_row = 0
        self._rests_until = -math.inf
        self._to_read, self._counted_at = READ_PER_S, clock()
        if threaded is None:
            threaded = predictor is not None and type(predictor) is not OnlinePredictor
        self._worker = Worker(name="penstock-predict") if threaded else None
        self._one_at_a_time = threading.Lock()

    def predict(self, call: CallFeatures, *, fallback: TokenEstimate) -> TokenEstimate:
        """Return the predictor's estimate, or the fallback if there is none in time.

        The fallback's p50 and p90 are capped by what the call allows, as the predictor's are.
        """
        estimate, cause = self._ask(call)
        if estimate is not None:
            self.counts.predicted += 1
        else:
            self.counts.fallbacks[cause] += 1
            estimate = fallback.capped(call.cap_tokens)
        self.stats.predicted(call.route, fell_back=bool(cause))
        return estimate

    def usual(self, kind: str) -> TokenEstimate | None:
        """Return what a reply to a call of this kind usually has, before any cap.

        For calls whose length decides nothing. None where the predictor is to read the call all
        the same: too little is known of its kind, it fails, or fewer than `READ_PER_S` came.
        """
        predictor = self._predictor
        if type(predictor) is not OnlinePredictor or self._is_stale():
            return None
        if not self._one_at_a_time.acquire(blocking=False):
            return None
        try:
            found = predictor.usual(kind)
            if found is None or self._has_to_read():
                return None
        except Exception as error:  # noqa: BLE001  `predict` will say what is wrong, and count it
            self.counts.last_error = _describe(error)
            return None
        finally:
            self._one_at_a_time.release()
        self.counts.usual += 1
        return found

    def _has_to_read(self) -> bool:
        now = self._clock()
        left = self._to_read + (now - self._counted_at) * READ_PER_S
        self._to_read, self._counted_at = min(READ_PER_S, left), now
        if self._to_read < 1.0:
            return False
        self._to_read -= 1.0
        return True

    def settle(self, call: CallFeatures, estimate: TokenEstimate, output_tokens: int) -> None:
        """Learn from a reply, and count how good its estimate was.

        Give it the estimate that `predict` returned: the predictor has learned since.
        """
        self.stats.settled(call.route, estimate, output_tokens)
        self.learn(call, output_tokens)

    def learn(self, call: CallFeatures, output_tokens: int) -> None:
        """Hand a reply's real usage to the predictor; never raises for what that does."""
        predictor = self._predictor
        if predictor is None:
            return
        if self._unlearned_since is None:
            self._unlearned_since = self._clock()
        work = partial(self._learn, predictor, call, output_tokens)
        if self._worker is None:
            work()
        elif not self._worker.post(work):
            self.counts.learn_failures += 1

    def save(self, path: Path) -> None:
        """Save what penstock's own predictor has learned; other threads may go on meanwhile.

        Raises:
            TypeError: it is a predictor of another kind, which saves itself or not.
            OSError: the place cannot be written.

        """
        self.snapshot().write(path)

    def snapshot(self) -> ModelCopy:
        """Return a copy of what penstock's own predictor has learned.

        Raises:
            TypeError: it is a predictor of another kind, which saves itself or not.

        """
        if not isinstance(self._predictor, OnlinePredictor):
            raise TypeError(f"{type(self._predictor).__name__} is not saved by penstock")
        with self._one_at_a_time:
            return self._predictor.snapshot()

    def close(self) -> None:
        """Let the thread end once its queue is empty. Further calls fall back."""
        if self._worker is not None:
            self._worker.close()

    def flush(self, *, timeout_s: float = 5.0) -> bool:
        """Wait until every reply handed over is learned; False if that took too long."""
        return self._worker is None or self._worker.flush(timeout_s=timeout_s)

    def _learn(self, predictor: TokenPredictor, call: CallFeatures, output_tokens: int) -> None:
        try:
            with self._one_at_a_time:
                predictor.learn(call, output_tokens)
        except Exception as error:  # noqa: BLE001  whatever it is, the reply is long delivered
            self.counts.learn_failures += 1
            self.counts.last_error = _describe(error)
        else:
            self.counts.learned += 1
            self._unlearned_since = None

    def _ask(self, call: CallFeatures) -> tuple[TokenEstimate | None, str]:
        """Return the estimate, or None and the cause for which there is none."""
        predictor = self._predictor
        if predictor is None:
            return None, "off"
        if self._is_stale():
            return None, "stale"
        try:
            if self._worker is None:
                estimate = self._ask_here(predictor, call)
            else:
                work = partial(predictor.predict, call)
                estimate = self._worker.ask(work, timeout_s=self._budget_s)
        except Slow:
            return None, "slow"
        except Exception as error:  # noqa: BLE001  the request goes on, whatever it is
            self.counts.last_error = _describe(error)
            return None, "invalid" if isinstance(error, ValueError) else "raised"
        if isinstance(estimate, TokenEstimate):
            return estimate, ""
        return None, "invalid"

    def _is_stale(self) -> bool:
        since = self._unlearned_since
        return since is not None and self._clock() - since > self._stale_after_s

    def _ask_here(self, predictor: TokenPredictor, call: CallFeatures) -> TokenEstimate:
        begun = self._clock()
        if begun < self._rests_until:
            raise Slow("resting after slow answers")
        if not self._one_at_a_time.acquire(timeout=self._budget_s):
            raise Slow("another thread has the predictor")
        try:
            estimate = predictor.predict(call)
        finally:
            self._one_at_a_time.release()
        ended = self._clock()
        self._slow_in_a_row = self._slow_in_a_row + 1 if ended - begun > self._budget_s else 0
        if self._slow_in_a_row >= _SLOW_MAX:
            self._slow_in_a_row = 0
            self._rests_until = ended + _REST_S
        return estimate


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
