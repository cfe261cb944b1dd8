"""Which model is fitted to recorded replies: numpy alone, or LightGBM where installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from penstock.errors import ConfigError
from penstock.predict.prior.folds import FoldPriors
from penstock.predict.prior.model import LogTokens
from penstock.predict.train.datasets import Lesson
from penstock.predict.train.training import Fit, fit_prior

LEARNERS = ("auto", "numpy", "boosted")


def learner(name: str, *, wider: LogTokens | None, folds: FoldPriors | None = None) -> Fit:
    """Return the fitting function of a learner.

    Args:
        name: one of `LEARNERS`.
        wider: gives the base of a route that is not among the lessons.
        folds: fold priors that boosted trees are told of. Numpy's learner does without: they
            would cost it half as much again a prediction.

    Raises:
        ConfigError: no such learner, or LightGBM is wanted and not installed.

    """
    if name not in LEARNERS:
        raise ConfigError(f"learner={name!r} is none of {', '.join(LEARNERS)}")
    installed = find_spec("lightgbm") is not None
    if name == "boosted" and not installed:
        raise ConfigError("learner='boosted' needs LightGBM: pip install penstock[boosted]")
    if name == "numpy" or not installed:

        def fit_numpy(lessons: Sequence[Lesson]) -> LogTokens:
            return fit_prior(lessons, labelled=True, wider=wider)

        return fit_numpy
    from penstock.predict.train.boosted import fit_boosted

    def fit_with_trees(lessons: Sequence[Lesson]) -> LogTokens:
        return fit_boosted(lessons, wider=wider, folds=folds)

    return fit_with_trees
