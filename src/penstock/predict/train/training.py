"""Train a prior from recorded replies, and set the online model up on top of it.

Oblivious trees are grown by gradient boosting. Before a model is frozen it has to forget of its
replay where chance left it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, cg

from penstock.predict.features.call import CallFeatures
from penstock.predict.features.text import PLACES
from penstock.predict.online.model import PRIOR, OnlineModel, group_keys
from penstock.predict.online.predictor import OnlinePredictor
from penstock.predict.prior.folds import FOLDS
from penstock.predict.prior.model import (
    LogTokens,
    ObliviousTrees,
    PriorModel,
    Regressor,
    inputs,
    route_places,
)
from penstock.predict.train.datasets import Lesson


@dataclass(frozen=True, slots=True)
class _Noted:
    keys: tuple[str, ...]
    experts: list[float]
    errors: list[float]
    prior: float
    spread: float
    log_tokens: float


class PriorReplay:
    """Notes a stream of recorded replies, and settles a model over the whole of it.

    Offsets, the mixture's weights and the residuals of p90 follow the last 50 to 200 replies, as
    they must where traffic drifts. Recorded replies in random order do not drift: there,
    following is noise, and all of them say more than the last.
    """

    def __init__(self) -> None:
        """Start with nothing noted."""
        self._noted: list[_Noted] = []

    def note(self, model: OnlineModel, call: CallFeatures, log_tokens: float) -> None:
        """Note what the model says of a reply that it has not learned yet."""
        seen = model.outlook(call)
        errors = model.errors(seen, log_tokens)
        self._noted.append(
            _Noted(group_keys(call), seen.experts, errors, seen.prior, seen.spread, log_tokens)
        )

    def settle(self, model: OnlineModel) -> None:
        """Put offsets, mixture and p90 to where the whole replay has them, in this order."""
        model.absorb()
        offsets: dict[str, list[float]] = defaultdict(list)
        errors: dict[str, list[list[float]]] = defaultdict(list)
        for item in self._noted:
            errors[item.keys[-1]].append(item.errors)
            for key in item.keys:
                offsets[key].append(item.log_tokens - item.prior)
        model.offsets.settle(offsets)
        model.mix.settle(errors)
        residuals: dict[str, list[float]] = defaultdict(list)
        for item in self._noted:
            experts = list(item.experts)
            experts[PRIOR] = item.prior + model.offsets.value(item.keys)
            weights = model.mix.weights(item.keys[-1])
            middle = sum(w * e for w, e in zip(weights, experts, strict=True))
            for key in item.keys:
                residuals[key].append((item.log_tokens - middle) / item.spread)
        model.p90.settle(residuals)
        model.changed()


_BINS = 32
_RATE = 0.05  # what each tree's correction is multiplied by
_LEAF_PRIOR = 10.0  # replies with correction zero that each leaf is thought to hold besides
_CLIP_SHARE = 0.4  # errors beyond it count as it (Huber), in log tokens


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """How trees are grown; defaults were chosen by cross-validation over prompts.

    Attributes:
        trees: how many.
        depth: questions per tree.
        feature_share: share of features on offer to each tree.

    """

    trees: int = 250
    depth: int = 4
    feature_share: float = 0.5


def grow(
    rows: NDArray[np.float32],
    targets: NDArray[np.float64],
    options: TreeOptions = TreeOptions(),
) -> ObliviousTrees:
    """Fit trees to targets by gradient boosting on clipped errors.

    Source:
        Friedman, Annals of Statistics 2001; oblivious trees as in CatBoost (Prokhorenkova et
        al., NeurIPS 2018).

    """
    chance = np.random.default_rng(0)
    borders = _borders(rows)
    binned = np.stack(
        [np.searchsorted(border, rows[:, f], side="left") for f, border in enumerate(borders)], 1
    )
    count = max(1, round(options.feature_share * rows.shape[1]))
    error = targets.astype(np.float64).copy()
    grown = []
    for _ in range(options.trees):
        offered = np.sort(chance.choice(rows.shape[1], count, replace=False))
        drawn = np.flatnonzero(chance.random(len(rows)) < 0.8)
        pull = np.clip(error, -_CLIP_SHARE, _CLIP_SHARE)
        questions, leaf = _grow_one(binned, borders, drawn, pull, offered, options)
        total = np.bincount(leaf[drawn], pull[drawn], 1 << options.depth)
        held = np.bincount(leaf[drawn], minlength=1 << options.depth)
        leaves = _RATE * total / (held + _LEAF_PRIOR)
        error -= leaves[leaf]
        grown.append((questions, leaves))
    return ObliviousTrees(
        np.array([[f for f, _ in q] for q, _ in grown], np.uint8).reshape(-1, options.depth),
        np.array([[borders[f][b] for f, b in q] for q, _ in grown], np.float32).reshape(
            -1, options.depth
        ),
        np.array([leaves for _, leaves in grown], np.float32).reshape(-1, 1 << options.depth),
    )


def _borders(rows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return up to 31 thresholds per feature, between its quantiles; at least one."""
    shares = np.linspace(0, 1, _BINS + 1)[1:-1]
    out = []
    for column in rows.T:
        border = np.unique(np.quantile(column, shares, method="lower").astype(np.float32))
        out.append(border)
    return out


def _grow_one(
    binned: NDArray[np.int64],
    borders: Sequence[NDArray[np.float32]],
    drawn: NDArray[np.int64],
    pull: NDArray[np.float64],
    offered: NDArray[np.int64],
    options: TreeOptions,
) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Return a tree: (feature, border) of each level, and in which leaf each row falls."""
    leaf = np.zeros(len(binned), np.int64)
    sample = binned[np.ix_(drawn, offered)]
    weights = np.repeat(pull[drawn], offered.size)
    asks = np.arange(_BINS - 1) < np.array([borders[f].size for f in offered])[:, None]
    questions: list[tuple[int, int]] = []
    for level in range(options.depth):
        nodes = 1 << level
        place = (leaf[drawn][:, None] * offered.size + np.arange(offered.size)) * _BINS + sample
        size = nodes * offered.size * _BINS
        shape = (nodes, offered.size, _BINS)
        total = np.bincount(place.ravel(), weights, size).reshape(shape).cumsum(2)
        held = np.bincount(place.ravel(), minlength=size).reshape(shape).cumsum(2)
        rest_total, rest_held = total[:, :, -1:] - total, held[:, :, -1:] - held
        gain = total**2 / (held + _LEAF_PRIOR)
        gain += rest_total**2 / (rest_held + _LEAF_PRIOR)
        gains = np.where(asks, gain.sum(0)[:, :-1], -1.0)
        feature, border = divmod(int(gains.argmax()), _BINS - 1)
        questions.append((int(offered[feature]), border))
        leaf += (binned[:, offered[feature]] > border).astype(np.int64) << level
    return questions, leaf


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
