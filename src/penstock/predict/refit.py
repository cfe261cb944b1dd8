"""The optional extra: a bigger model, refitted to recent traffic in the background."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from penstock.predict.call import CallFeatures
from penstock.predict.lessons import Lesson, lesson
from penstock.predict.predictor import Predictor
from penstock.predict.prior import LogTokens
from penstock.predict.training import Fit

Start = Callable[[Callable[[], None]], None]


def in_thread(work: Callable[[], None]) -> None:
    """Run `work` in a daemon thread of its own."""
    threading.Thread(target=work, name="penstock-refit", daemon=True).start()


class RefittingPredictor:
    """A predictor that now and then gets a model fitted to its own last replies as an expert.

    The new expert starts with losses on the books, so it is heard where it beats the online
    model on the traffic since, and nowhere else. It costs memory (some MB for the lessons) and
    time (0.6 ms a call with LightGBM), which is why nobody gets it without asking.
    """

    def __init__(
        self,
        predictor: Predictor,
        fit: Fit,
        *,
        every: int = 1000,
        keep: int = 3000,
        start: Start = in_thread,
    ) -> None:
        """Refit after `every` replies to the last `keep`; `start` runs the fit elsewhere."""
        self.predictor = predictor
        self.refits = 0
        self.last_error = ""
        self._fit = fit
        self._every = every
        self._lessons: deque[Lesson] = deque(maxlen=keep)
        self._since = 0
        self._busy = False
        self._fitted: LogTokens | None = None
        self._start = start
        self.predict = predictor.predict

    def learn(self, call: CallFeatures, output_tokens: int) -> None:
        """Take note of the real output tokens; begin a refit when it is time for one."""
        fitted, self._fitted = self._fitted, None
        if fitted is not None:  # taken over here, so that the model changes in one thread only
            self.predictor.model.hire(fitted)
            self.refits += 1
        self.predictor.learn(call, output_tokens)
        self._lessons.append(lesson(call, output_tokens))
        self._since += 1
        if self._since >= self._every and not self._busy:
            self._since, self._busy = 0, True
            lessons = list(self._lessons)
            self._start(lambda: self._refit(lessons))

    def _refit(self, lessons: Sequence[Lesson]) -> None:
        try:
            self._fitted = self._fit(lessons)
        except Exception as error:  # noqa: BLE001  the online model goes on without it
            self.last_error = f"{type(error).__name__}: {error}"[:200]
        finally:
            self._busy = False
