"""Which model is fitted to recorded replies, by which learner, and how a file of it is made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from penstock.errors import ConfigError
from penstock.predict.prior.folds import FOLDS, FoldPriors
from penstock.predict.prior.model import LogTokens, PriorModel
from penstock.predict.train.datasets import Lesson, RecordedReply, lesson
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


_ROUNDS = 3
_MODELS_MIN = 3  # of which a prompt needs replies before it says who is verbose
_PROMPTS_MIN = 50
_STEP = 1 / 64  # weights of fold priors are rounded to it: less than half the bytes


def train_shared(replies: Sequence[RecordedReply]) -> PriorModel:
    """Return a prior that reads prompts and knows some models, but no route labels."""
    return fit_shared(*shared_lessons(replies))


def train_folds(replies: Sequence[RecordedReply]) -> FoldPriors:
    """Return five priors as `train_shared` makes one, each without the prompts of a fold."""
    lessons, verbosity = shared_lessons(replies)
    priors = []
    for fold in range(FOLDS):
        rest = [item for item in lessons if item.fold != fold]
        prior = fit_shared(rest or lessons, verbosity)
        prior.grams = (np.round(prior.grams / _STEP) * _STEP).astype(np.float32)
        priors.append(prior)
    return FoldPriors(tuple(priors))


def fit_shared(lessons: Sequence[Lesson], verbosity: dict[str, float]) -> PriorModel:
    """Return a prior fitted to lessons that `shared_lessons` made."""
    prior = fit_prior(lessons, labelled=False)
    prior.verbosity = verbosity
    return prior


def shared_lessons(replies: Sequence[RecordedReply]) -> tuple[list[Lesson], dict[str, float]]:
    """Return one lesson a prompt, and by how much each model's replies are longer than others'.

    Each prompt counts once, with the mean over models of the log length, each model's
    verbosity taken off: forty replies to one prompt are hardly more than one to learn from.
    """
    lessons: dict[str, list[tuple[str, Lesson]]] = defaultdict(list)
    for reply in replies:
        entry = (reply.call.model, lesson(reply.call, reply.output_tokens))
        lessons[reply.prompt].append(entry)
    verbosity = _verbosity(list(lessons.values()))
    means = []
    for entries in lessons.values():
        values = [item.log_tokens - verbosity.get(model, 0.0) for model, item in entries]
        first = entries[0][1]
        means.append(Lesson(first.call, float(np.mean(values)), first.fold))
    return means, verbosity


def _verbosity(prompts: Sequence[Sequence[tuple[str, Lesson]]]) -> dict[str, float]:
    verbosity: dict[str, float] = {}
    for _ in range(_ROUNDS):
        gaps: dict[str, list[float]] = defaultdict(list)
        for entries in prompts:
            if len(entries) < _MODELS_MIN:
                continue
            middle = np.median([item.log_tokens - verbosity.get(m, 0.0) for m, item in entries])
            for model, item in entries:
                gaps[model].append(item.log_tokens - float(middle))
        verbosity = {
            model: round(float(np.median(values)), 3)
            for model, values in sorted(gaps.items())
            if len(values) >= _PROMPTS_MIN
        }
    return verbosity
