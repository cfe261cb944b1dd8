"""The runs of one study by experiment, regime and variant; each mean over seeds has an interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import bootstrap

from penstock.experiments.measure import RunOutcome
from penstock.experiments.paper import Experiment

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


@dataclass(frozen=True, slots=True)
class Cell:
    """All seeds of one regime and variant."""

    runs: tuple[RunOutcome, ...]

    def mean(self, figure: str) -> float:
        """Return the figure's mean over the seeds; nan where no run has it."""
        return average([run.figures[figure] for run in self.runs])

    def interval(self, figure: str) -> Mean:
        """Return the mean with its bootstrap interval."""
        return mean_of(tuple(run.figures[figure] for run in self.runs))

    def shed(self, bucket: str) -> int:
        """Return how many requests of the bucket were refused, over all seeds."""
        return sum(run.shed[bucket] for run in self.runs)

    def submitted(self, bucket: str) -> int:
        """Return how many requests of the bucket there were, over all seeds."""
        return sum(run.submitted[bucket] for run in self.runs)

    def shed_share(self, bucket: str) -> float:
        """Return which share of the bucket's requests was refused; 0 where there were none."""
        return self.shed(bucket) / max(1, self.submitted(bucket))


@dataclass(frozen=True, slots=True)
class Results:
    """What the grid experiments found.

    Attributes:
        experiments: those that were run.
        cells: by experiment, regime and variant.

    """

    experiments: Mapping[str, Experiment]
    cells: Mapping[tuple[str, str, str], Cell]

    def cell(self, experiment: str, regime: str, variant: str) -> Cell:
        """Return the cell.

        Raises:
            KeyError: there is none of that name.

        """
        return self.cells[(experiment, regime, variant)]

    def regimes(self, experiment: str) -> list[str]:
        """Return the experiment's regimes, in their order."""
        return [regime.name for regime in self.experiments[experiment].regimes]

    def variants(self, experiment: str) -> list[str]:
        """Return the experiment's variants, in their order."""
        return [variant.name for variant in self.experiments[experiment].variants]
