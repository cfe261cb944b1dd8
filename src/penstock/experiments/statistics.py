"""Means over seeds, with an interval that says how far to trust them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its bootstrap interval; nan where no run had a figure.

    One figure has no interval: its ends are nan.
    """

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """True if there is a figure."""
        return not math.isnan(self.mean)


@lru_cache(maxsize=65536)
def mean_of(values: tuple[float | None, ...]) -> Mean:
    """Return the mean and its 95 % bootstrap interval (percentile method).

    Figures that are None (nothing completed) are left out. The resampling is seeded, so the same
    values always give the same interval.

    Source:
        Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13. The percentile method,
        as BCa is undefined when all values but one agree, which five seeds often do.

    """
    known = [v for v in values if v is not None and not math.isnan(v)]
    if not known:
        return Mean(math.nan, math.nan, math.nan)
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return Mean(mean, math.nan, math.nan)
    if min(known) == max(known):
        return Mean(mean, mean, mean)
    interval = bootstrap(
        (np.asarray(known),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Mean(mean, float(interval.low), float(interval.high))


def average(values: Sequence[float | None]) -> float:
    """Return the mean of the figures that there are; nan if there are none."""
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else math.nan
