"""Recorded replies as what a model is fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.predict.features.call import CallFeatures
from penstock.predict.prior.folds import fold_of


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """A recorded reply.

    Attributes:
        call: what was asked.
        log_tokens: logarithm of its output tokens per choice, at least 0.
        fold: equal for equal prompts, in 0 to FOLDS - 1.

    """

    call: CallFeatures
    log_tokens: float
    fold: int


def lesson(call: CallFeatures, output_tokens: float) -> Lesson:
    """Return the lesson that a recorded reply teaches."""
    return Lesson(call, math.log(max(1.0, output_tokens / call.choices)), fold_of(call))
