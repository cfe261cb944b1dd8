"""A prior: what was learned from recorded replies before the first one of the user's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.predict.archive import StateError
from penstock.predict.features.call import CallFeatures
from penstock.predict.features.text import PLACES

_ROUTE_STRIDE = 31  # odd, so that the places of one route stay apart
_PLACE_VALUES = (1 << np.arange(16)).astype(np.float32)


class Regressor(Protocol):
    """The last stage of a prior: oblivious trees, or the boosted trees of a library."""

    def value(self, x: NDArray[np.float32]) -> float:
        """Return the correction for one call."""
        ...

    def values(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the correction for many calls."""
        ...


class LogTokens(Protocol):
    """Anything that predicts the logarithm of a reply's tokens from a call."""

    def log_tokens(self, call: CallFeatures) -> float:
        """Return the expected logarithm of output tokens per choice."""
        ...


@dataclass(slots=True)
class PriorModel:
    """Medians of known groups, n-gram weights, and trees over all of it.

    Attributes:
        start: log tokens where nothing is known.
        bases: log medians of the groups of the training data; empty if it had no labels.
        verbosity: by how much a model's replies are longer than the others', in log tokens.
        grams: weights of n-grams; with labels, a second half is for n-grams on their route.
        trees: corrections from dense features, base and n-grams.
        wider: a prior without labels, which gives the base of an unknown route. It is no input
            of the trees: it may have seen the very prompts that they are trained on.
        checksum: of the file that it came from; 0 for one just trained.

    """

    start: float
    bases: dict[str, float] = field(default_factory=dict)
    verbosity: dict[str, float] = field(default_factory=dict)
    grams: NDArray[np.float32] = field(default_factory=lambda: np.zeros(PLACES, np.float32))
    trees: Regressor | None = None
    wider: LogTokens | None = None
    checksum: int = field(default=0, compare=False)

    def log_tokens(self, call: CallFeatures) -> float:
        """Return the expected logarithm of output tokens per choice."""
        base = self.base(call)
        by_grams = self.from_grams(call)
        value = base + by_grams
        if self.trees is not None:
            value += self.trees.value(inputs(call, base, by_grams))
        return value

    def base(self, call: CallFeatures) -> float:
        """Return the median of the narrowest group known; else what the wider prior says."""
        base = self.bases.get(f"{call.model}\0{call.route}", self.bases.get(call.route))
        if base is None:
            base = self.start if self.wider is None else self.wider.log_tokens(call)
        return base + self.verbosity.get(call.model, 0.0)

    def from_grams(self, call: CallFeatures) -> float:
        """Return what the n-grams add."""
        if call.grams.size == 0:
            return 0.0
        total = float(np.add.reduce(self.grams.take(call.grams)))
        size = call.grams.size
        if self.grams.size > PLACES:
            total += float(self.grams.take(route_places(call)).sum())
            size *= 2
        return total / math.sqrt(size)


def inputs(call: CallFeatures, base: float, by_grams: float) -> NDArray[np.float32]:
    """Return what the trees see of a call."""
    out = np.empty(call.dense.size + 3, np.float32)
    out[:3] = base, by_grams, base + by_grams
    out[3:] = call.dense
    return out


def route_places(call: CallFeatures) -> NDArray[np.int64]:
    """Return the places of a call's n-grams on its route, in the second half of the weights.

    Source:
        Multi-task hashing: Weinberger et al., ICML 2009.

    """
    shift = call.route_sum
    return PLACES + (call.grams.astype(np.int64) * _ROUTE_STRIDE + shift) % PLACES


def arrays_of(prior: PriorModel, named: str, *, exact: bool = False) -> dict[str, NDArray[Any]]:
    """Return a prior's weights and trees, as a file keeps them: rounded unless `exact`.

    Args:
        prior: of numpy's own trees, or of none.
        named: an array's name in the file, with `{}` for what it holds.
        exact: keep the weights of n-grams to the last digit.

    Raises:
        StateError: its trees are of another library.

    """
    trees = empty_trees() if prior.trees is None else prior.trees
    if not isinstance(trees, ObliviousTrees):
        raise StateError("a prior with boosted trees of another library cannot be saved")
    return {
        named.format("grams"): prior.grams.astype(np.float32 if exact else np.float16),
        named.format("features"): trees.features,
        named.format("thresholds"): trees.thresholds,
        named.format("leaves"): trees.leaves.astype(np.float16),
    }


def prior_of(arrays: dict[str, NDArray[Any]], named: str, **facts: Any) -> PriorModel:
    """Return the prior of which `arrays_of` made these arrays, and the facts kept beside them."""
    return PriorModel(
        **facts,
        grams=arrays[named.format("grams")].astype(np.float32),
        trees=ObliviousTrees(
            arrays[named.format("features")],
            arrays[named.format("thresholds")],
            arrays[named.format("leaves")].astype(np.float32),
        ),
    )


@dataclass(slots=True, eq=False)
class ObliviousTrees:
    """Trees that ask one question per level, so that all trees are asked at once.

    Attributes:
        features: which feature each level of each tree looks at, (trees, depth).
        thresholds: above which value the answer is yes, (trees, depth).
        leaves: what each of the 2**depth outcomes adds, (trees, 2**depth).

    """

    features: NDArray[np.uint8]
    thresholds: NDArray[np.float32]
    leaves: NDArray[np.float32]
    _places: NDArray[np.intp] = field(init=False)  # `features`, as numpy indexes by them
    _firsts: NDArray[np.intp] = field(init=False)  # where the leaves of each tree begin

    def __post_init__(self) -> None:
        """Compute once what every call needs."""
        self._places = self.features.astype(np.intp)
        self._firsts = np.arange(0, self.leaves.size, self.leaves.shape[1])

    def value(self, x: NDArray[np.float32]) -> float:
        """Return the sum of all trees for one call."""
        if not self.features.size:
            return 0.0
        yes = (x.take(self._places) > self.thresholds).astype(np.float32)
        leaf = (yes @ _PLACE_VALUES[: yes.shape[1]]).astype(np.intp)  # a product of floats is fast
        leaf += self._firsts
        return float(np.add.reduce(self.leaves.take(leaf)))

    def values(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the sum of all trees for many calls."""
        out = np.zeros(len(rows))
        for tree in range(len(self.features)):
            leaf = np.zeros(len(rows), np.int64)
            for level, feature in enumerate(self.features[tree]):
                leaf += (rows[:, feature] > self.thresholds[tree, level]).astype(np.int64) << level
            out += self.leaves[tree, leaf]
        return out


def empty_trees() -> ObliviousTrees:
    """Return trees that add nothing."""
    return ObliviousTrees(
        np.empty((0, 1), np.uint8), np.empty((0, 1), np.float32), np.empty((0, 2), np.float32)
    )
