"""The predictor may fail in any way: the request goes on, with its class's table value."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from penstock.core.model import TokenEstimate
from penstock.predict.call import CallFeatures
from penstock.predict.worker import Slow, Worker


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
        fallbacks: estimates that did not, by cause: "raised", "slow", "invalid", "stale", "off".
        learned: replies handed to the predictor.
        learn_failures: replies it raised on.
        learn_dropped: replies that found its queue full.
        last_error: type and text of the last exception, "" if none.

    """

    predicted: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)
    learned: int = 0
    learn_failures: int = 0
    learn_dropped: int = 0
    last_error: str = ""


class GuardedPredictor:
    """A predictor that always answers, within its time budget.

    The predictor runs in one thread of its own, which also does the learning, so that it needs
    no lock. A prediction that is not there after `budget_s` is abandoned and the fallback
    stands; until that thread is back, every call falls back at once, without waiting. A thread
    cannot be killed: see the page "explanation/predictor" for what that leaves open.
    """

    def __init__(
        self,
        predictor: TokenPredictor | None,
        *,
        budget_s: float = 0.004,
        stale_after_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Guard a predictor; None means that every estimate is the fallback ("off").

        Args:
            predictor: used from the guard's thread only, from now on.
            budget_s: longest wait for an estimate.
            stale_after_s: the predictor is out of date when replies have come in for so long
                without one that it learned from.
            clock: monotonic seconds.

        """
        self.counts = GuardCounts()
        self._predictor = predictor
        self._budget_s = budget_s
        self._stale_after_s = stale_after_s
        self._clock = clock
        self._unlearned_since: float | None = None
        self._worker = Worker(name="penstock-predict") if predictor is not None else None

    def predict(self, call: CallFeatures, *, fallback: TokenEstimate) -> TokenEstimate:
        """Return the predictor's estimate, or the fallback if there is none in time.

        The fallback's p50 and p90 are capped by what the call allows, as the predictor's are.
        """
        cause = "off"
        if self._predictor is not None and self._worker is not None:
            if self._is_stale():
                cause = "stale"
            else:
                estimate, cause = self._ask(self._predictor, self._worker, call)
                if estimate is not None:
                    self.counts.predicted += 1
                    return estimate
        self.counts.fallbacks[cause] += 1
        return cap_estimate(fallback, call.cap_tokens)

    def learn(self, call: CallFeatures, output_tokens: int) -> None:
        """Hand a reply's real usage to the predictor; returns at once."""
        if self._predictor is None or self._worker is None:
            return
        predictor = self._predictor
        if self._unlearned_since is None:
            self._unlearned_since = self._clock()

        def work() -> None:
            try:
                predictor.learn(call, output_tokens)
            except Exception as error:
                self.counts.learn_failures += 1
                self.counts.last_error = _describe(error)
            else:
                self.counts.learned += 1
                self._unlearned_since = None

        if not self._worker.post(work):
            self.counts.learn_dropped += 1

    def close(self) -> None:
        """Let the thread end once its queue is empty. Further calls fall back."""
        if self._worker is not None:
            self._worker.close()

    def flush(self, *, timeout_s: float = 5.0) -> bool:
        """Wait until every reply handed over is learned; False if that took too long."""
        return self._worker is None or self._worker.flush(timeout_s=timeout_s)

    def _is_stale(self) -> bool:
        since = self._unlearned_since
        return since is not None and self._clock() - since > self._stale_after_s

    def _ask(
        self, predictor: TokenPredictor, worker: Worker, call: CallFeatures
    ) -> tuple[TokenEstimate | None, str]:
        try:
            estimate = worker.ask(lambda: predictor.predict(call), timeout_s=self._budget_s)
        except Slow:
            return None, "slow"
        except Exception as error:
            self.counts.last_error = _describe(error)
            return None, "invalid" if isinstance(error, ValueError) else "raised"
        if isinstance(estimate, TokenEstimate) and estimate.p90_tokens < math.inf:
            return estimate, ""
        return None, "invalid"


def cap_estimate(estimate: TokenEstimate, cap_tokens: float) -> TokenEstimate:
    """Return the estimate with both quantiles at most `cap_tokens` (inf: unchanged)."""
    if estimate.p90_tokens <= cap_tokens:
        return estimate
    cap = max(1.0, cap_tokens)
    return TokenEstimate(min(estimate.p50_tokens, cap), cap, estimate.source)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
