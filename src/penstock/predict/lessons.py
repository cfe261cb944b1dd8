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
    """Return a lesson."""
    return Lesson(call, math.log(max(1.0, output_tokens / call.choices)), fold_of(call))


def fold_of(call: CallFeatures) -> int:
    """Return the fold of a call. Prompts with the same n-grams fall into the same one."""
    total = int(call.grams.astype(np.int64).sum()) * 2654435761 + call.grams.size
    return (total >> 7) % FOLDS
