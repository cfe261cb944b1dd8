"""Train a prior from recorded replies, and set the online model up on top of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, cg

from penstock.predict.features.call import CallFeatures
from penstock.predict.features.text import PLACES
from penstock.predict.online.predictor import OnlinePredictor
from penstock.predict.prior.folds import FOLDS
from penstock.predict.prior.model import LogTokens, PriorModel, Regressor, inputs, route_places
from penstock.predict.train.datasets import Lesson
from penstock.predict.train.replay import PriorReplay
from penstock.predict.train.trees import grow

_REPLAYED = 4000
_RIDGE = 1.0
_RIDGE_LABELLED = 0.5  # two halves share the work
_ROUNDS = 40
_CLIP = 4.0  # log tokens; a reply that ran into its cap is no better known for it

Fit = Callable[[Sequence["Lesson"]], LogTokens]
Grow = Callable[[NDArray[np.float32], NDArray[np.float64]], Regressor]


def fit_prior(
    lessons: Sequence[Lesson],
    *,
    labelled: bool,
    wider: LogTokens | None = None,
    last_stage: Grow | None = grow,
) -> PriorModel:
    """Fit a prior to recorded replies.

    The trees are shown what n-gram weights fitted to the other folds say, so that they learn
    how far to trust them on prompts never seen.

    Args:
        lessons: at least one.
        labelled: whether routes and models are those of the calls to come; a shipped prior
            must do without.
        wider: a prior that is asked as well.
        last_stage: fits the corrections, oblivious trees in numpy; None leaves them out.

    """
    calls = [item.call for item in lessons]
    log_tokens = np.array([item.log_tokens for item in lessons])
    prior = PriorModel(start=float(np.median(log_tokens)), wider=wider)
    if labelled:
        prior.bases = _group_medians(lessons)
        prior.grams = np.zeros(2 * PLACES, np.float32)
    base = np.array([prior.base(call) for call in calls])
    targets = np.clip(log_tokens - base, -_CLIP, _CLIP)
    texts = [_places(call, labelled=labelled) for call in calls]
    ridge = _RIDGE_LABELLED if labelled else _RIDGE
    everyone = np.arange(len(lessons))
    prior.grams = _fit(texts, everyone, targets, prior.grams.size, ridge).astype(np.float32)
    if last_stage is not None:
        by_grams = linear_out_of_fold(lessons, targets, labelled=labelled)
        rows = np.stack([inputs(c, b, t) for c, b, t in zip(calls, base, by_grams, strict=True)])
        prior.trees = last_stage(rows, targets - by_grams)
    return prior


def linear_out_of_fold(
    lessons: Sequence[Lesson], targets: NDArray[np.float64], *, labelled: bool
) -> NDArray[np.float64]:
    """Return what n-gram weights fitted to the other folds say of each lesson."""
    texts = [_places(item.call, labelled=labelled) for item in lessons]
    ridge = _RIDGE_LABELLED if labelled else _RIDGE
    places = 2 * PLACES if labelled else PLACES
    folds = np.array([item.fold for item in lessons])
    by_grams = np.zeros(len(lessons))
    for fold in range(FOLDS):
        rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if rest.size and held.size:
            weights = _fit(texts, rest, targets, places, ridge)
            by_grams[held] = _matrix([texts[i] for i in held], places) @ weights
    return by_grams


def out_of_fold(
    lessons: Sequence[Lesson],
    fit: Fit,
) -> NDArray[np.float64]:
    """Return what priors fitted to the other folds say of each lesson."""
    out = np.zeros(len(lessons))
    for fold in range(FOLDS):
        rest = [item for item in lessons if item.fold != fold]
        held = [number for number, item in enumerate(lessons) if item.fold == fold]
        if not held:
            continue
        prior = fit(rest or lessons)
        for number in held:
            out[number] = prior.log_tokens(lessons[number].call)
    return out


def _group_medians(lessons: Sequence[Lesson]) -> dict[str, float]:
    groups: dict[str, list[float]] = defaultdict(list)
    for item in lessons:
        groups[item.call.route].append(item.log_tokens)
    routes = {route: float(np.median(values)) for route, values in groups.items()}
    narrow: dict[str, list[float]] = defaultdict(list)
    for item in lessons:
        narrow[f"{item.call.model}\0{item.call.route}"].append(item.log_tokens)
    bases = dict(routes)
    for key, values in narrow.items():
        wide = routes[key.split("\0", 1)[1]]
        bases[key] = wide + len(values) / (len(values) + 1.0) * (float(np.median(values)) - wide)
    return bases


def _places(call: CallFeatures, *, labelled: bool) -> NDArray[np.int64]:
    places = call.grams.astype(np.int64)
    return np.concatenate((places, route_places(call))) if labelled else places


def _fit(
    texts: Sequence[NDArray[np.int64]],
    chosen: NDArray[np.int64],
    targets: NDArray[np.float64],
    places: int,
    ridge: float,
) -> NDArray[np.float64]:
    """Return the weights that minimise squared error plus `ridge` times their square.

    Source:
        Conjugate gradients on the normal equations; Hestenes & Stiefel, 1952.

    """
    matrix = _matrix([texts[i] for i in chosen], places)
    normal = LinearOperator(
        (places, places),
        lambda weights: matrix.T @ (matrix @ weights) + ridge * weights,
        dtype=np.float64,
    )
    weights: NDArray[np.float64]
    weights, _ = cg(normal, matrix.T @ targets[chosen], rtol=1e-4, maxiter=_ROUNDS)
    return weights


def _matrix(texts: Sequence[NDArray[np.int64]], places: int) -> csr_array:
    """Return texts as rows of a sparse matrix: 1 / sqrt(n) at each of a text's n places."""
    sizes = np.array([text.size for text in texts], np.int64)
    values = np.repeat(1.0 / np.sqrt(np.maximum(1, sizes)), sizes)
    columns = np.concatenate([*texts, np.empty(0, np.int64)])
    starts = np.concatenate(([0], np.cumsum(sizes)))
    return csr_array((values, columns, starts), shape=(len(texts), places))


class _Recorded:
    """A prior that says what it is told to: for replaying out-of-fold predictions."""

    value = 0.0

    def log_tokens(self, call: CallFeatures) -> float:
        return self.value


def train_predictor(lessons: Sequence[Lesson], fit: Fit, *, seed: int = 0) -> OnlinePredictor:
    """Return a predictor trained on recorded replies of the routes and models to come.

    The online part sees the lessons as a stream in which the prior says what a prior fitted
    without that prompt would have said. So its errors, and with them p90, are those of
    prompts never seen. What it follows from reply to reply is settled over the whole stream.
    """
    held_out = out_of_fold(lessons, fit)
    recorded = _Recorded()
    predictor = OnlinePredictor.with_prior(recorded)
    model, replay = predictor.model, PriorReplay()
    order = np.random.default_rng(seed).permutation(len(lessons))[-_REPLAYED:]
    for number in order:
        recorded.value = float(held_out[number])
        call, log_tokens = lessons[number].call, lessons[number].log_tokens
        replay.note(model, call, log_tokens)
        model.learn(call, log_tokens)
    replay.settle(model)
    model.prior = fit(lessons)
    model.changed()
    return predictor
