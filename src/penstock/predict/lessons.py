"""Recorded replies as what a model is fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from penstock.predict.call import CallFeatures

FOLDS = 5


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
    """Return a lesson. Prompts with the same n-grams fall into the same fold."""
    total = int(call.grams.astype(np.int64).sum()) * 2654435761 + call.grams.size
    value = math.log(max(1.0, output_tokens / call.choices))
    return Lesson(call, value, (total >> 7) % FOLDS)
