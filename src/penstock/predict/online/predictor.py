"""The predictor: estimates output tokens at submission, learns from every reply."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

from penstock.core.model import TokenEstimate
from penstock.predict.features.call import CallFeatures
from penstock.predict.online.model import NO_PRIOR, SHIPPED, TRAINED, OnlineModel
from penstock.predict.online.state import ModelCopy, read_state, snapshot
from penstock.predict.prior.file import shipped_prior
from penstock.predict.prior.model import LogTokens, PriorModel

USUAL = "predictor:usual"
"""The source of an estimate that is what replies of a kind usually have."""
_KNOWN_AFTER = 50  # replies of a kind: of fewer a p90 is a matter of one or two of them
_MOST_ABOVE, _MOST_BELOW = 2.0, 3.0
"""Replies of a kind are alike where the p90 is so many times the median at most, and that so many
times the p10. Labelled routes of the GPT-4 mix are, 84 % of its calls; all in one kind are not."""


class OnlinePredictor:
    """Estimates a call's output tokens and learns from what the reply really had.

    Not safe to use from two threads at once; `GuardedPredictor` lets in one at a time.
    """

    def __init__(self, model: OnlineModel, *, source: str) -> None:
        """Wrap a model; use `cold`, `shipped`, `with_prior` or `load` to get one."""
        self.model = model
        self.source = source

    @classmethod
    def cold(cls) -> Self:
        """Return a predictor that knows nothing yet."""
        return cls(OnlineModel(None, NO_PRIOR), source="predictor:online")

    @classmethod
    def shipped(cls) -> Self:
        """Return a predictor that starts from the prior shipped with penstock.

        Raises:
            StateError: the installation's prior file is damaged.

        """
        return cls.from_prior(shipped_prior())

    @classmethod
    def from_prior(cls, prior: LogTokens) -> Self:
        """Return a predictor that starts from a prior that knows no routes of the user's."""
        return cls(OnlineModel(prior, SHIPPED), source="predictor:shipped")

    @classmethod
    def with_prior(cls, prior: LogTokens) -> Self:
        """Return a predictor that starts from a prior trained on the user's own records."""
        return cls(OnlineModel(prior, TRAINED), source="predictor:trained")

    @classmethod
    def starting_from(cls, prior: LogTokens) -> Self:
        """Return a predictor on a prior of either kind: with routes of the user's, or without."""
        if isinstance(prior, PriorModel) and not prior.bases:
            return cls.from_prior(prior)
        return cls.with_prior(prior)

    def predict(self, call: CallFeatures) -> TokenEstimate:
        """Return p50 and p90 of all output tokens of the call, at most what it allows."""
        seen = self.model.outlook(call)
        p50 = _at_least_one(seen.middle) * call.choices
        p90 = _at_least_one(seen.middle + seen.above) * call.choices
        cap = max(1.0, call.cap_tokens)
        p50 = min(p50, cap)
        return TokenEstimate(p50, max(p50, min(p90, cap)), self.source)

    def usual(self, kind: str) -> TokenEstimate | None:
        """Return what a reply to a call of this kind usually has, before any cap; see `kind_of`.

        The quantiles of the last replies of its group; None where too few are known, or they
        differ much. It costs a hundredth of a prediction, which knows better by the call's texts.
        """
        found = self.model.centres.quantiles(kind, (0.1, 0.5, 0.9), at_least=_KNOWN_AFTER)
        if found is None:
            return None
        p10, p50, p90 = map(_at_least_one, found)
        alike = p90 <= _MOST_ABOVE * p50 and p50 <= _MOST_BELOW * p10
        return TokenEstimate(p50, p90, USUAL) if alike else None

    def learn(self, call: CallFeatures, output_tokens: int) -> None:
        """Take note of the real output tokens over all choices; 0 counts as 1.

        Raises:
            ValueError: the count is negative, or no finite number.

        """
        if not 0 <= output_tokens < math.inf:
            raise ValueError(
                f"output_tokens={output_tokens} is not a count: was a reply without usage "
                "handed over? Leave it out instead."
            )
        self.model.learn(call, math.log(max(1.0, output_tokens / call.choices)))

    def save(self, path: Path) -> None:
        """Write what was learned: no prompt text, no prior. Appears whole or not at all.

        Raises:
            OSError: the place cannot be written.

        """
        self.snapshot().write(path)

    def snapshot(self) -> ModelCopy:
        """Return a copy of what was learned, which another thread may write to a file."""
        return snapshot(self.model, source=self.source)

    @classmethod
    def load(cls, path: Path, *, prior: LogTokens | None = None) -> Self:
        """Return the predictor that was saved at `path`.

        Args:
            path: as given to `save`.
            prior: what the saved predictor started from, if that was a prior of the user's own;
                the shipped one is found by itself.

        Raises:
            OtherPriorError: it was learned on another prior, or needs one that was not given.
            StateError: the file is damaged, of another version or no state at all.
            OSError: it cannot be read.

        """
        model, source = read_state(path, prior=prior)
        return cls(model, source=source)

    def restored(self, path: Path) -> Self:
        """Return the predictor that was saved at `path`, if it started where this one starts.

        Raises:
            OtherPriorError: it started from something else.
            StateError: the file is damaged, of another version or no state at all.
            OSError: it cannot be read.

        """
        model, source = read_state(path, prior=self.model.prior, start=self.source)
        return type(self)(model, source=source)


def _at_least_one(log_tokens: float) -> float:
    """Return tokens from their logarithm, within 1 and a million; NaN is a ValueError."""
    if math.isnan(log_tokens):
        raise ValueError("the predictor's own figures are not numbers (NaN)")
    return math.exp(min(13.8, max(0.0, log_tokens)))
