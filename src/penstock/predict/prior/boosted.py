"""Boosted trees as a prior, and kernel ridge regression over the n-grams of recorded calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from penstock.predict.archive import StateError
from penstock.predict.features.call import CallFeatures
from penstock.predict.features.text import PLACES
from penstock.predict.prior.folds import FoldPriors
from penstock.predict.prior.model import PriorModel

SHARPNESSES = (2.0, 4.0)
_RIDGE = 0.5
_DENSE_WEIGHT = 0.5


@dataclass(slots=True, eq=False)
class GramKernel:
    """Recorded calls and, for each sharpness, how much each of them counts.

    Slower and better than the signatures of `KernelWindow`: half a millisecond a call.

    Attributes:
        grams: places of all calls, one after the other.
        starts: where each call's places begin in `grams`.
        roots: square root of each call's number of places.
        dense: dense features, one row a call.
        routes: checksum of each call's route.
        weights: one row a sharpness.

    """

    grams: NDArray[np.int64]
    starts: NDArray[np.int64]
    roots: NDArray[np.float32]
    dense: NDArray[np.float32]
    routes: NDArray[np.uint32]
    weights: NDArray[np.float32]

    def values(self, call: CallFeatures) -> list[float]:
        """Return the regression's value for each sharpness."""
        return [
            float(row @ weights) for row, weights in zip(self.rows(call), self.weights, strict=True)
        ]

    def rows(self, call: CallFeatures) -> list[NDArray[np.float32]]:
        """Return how alike the call is to each recorded one, for each sharpness."""
        present = np.zeros(PLACES, np.float32)
        present[call.grams] = 1.0 / np.sqrt(max(1, call.grams.size))
        found = np.append(present.take(self.grams), np.float32(0.0))
        total = np.add.reduceat(found, self.starts)
        shared: NDArray[np.float32] = np.where(
            self.roots > 0, total / np.maximum(1.0, self.roots), 0.0
        )
        gap = self.dense - call.dense
        distance = np.einsum("ij,ij->i", gap, gap) / call.dense.size
        near = _DENSE_WEIGHT * np.exp(-0.5 * distance)
        same = 1.0 + (self.routes == call.route_sum)
        return [
            ((np.exp(sharp * (shared - 1.0)) + near) * same).astype(np.float32)
            for sharp in SHARPNESSES
        ]


def keep_calls(calls: Sequence[CallFeatures]) -> GramKernel:
    """Return a kernel over these calls, with weights still zero."""
    sizes = np.array([call.grams.size for call in calls], np.int64)
    return GramKernel(
        grams=np.concatenate([call.grams for call in calls]).astype(np.int64),
        starts=np.cumsum(sizes) - sizes,
        roots=np.sqrt(sizes).astype(np.float32),
        dense=np.stack([call.dense for call in calls]),
        routes=np.array([call.route_sum for call in calls], np.uint32),
        weights=np.zeros((len(SHARPNESSES), len(calls)), np.float32),
    )


def solve(kernel: NDArray[np.float32], targets: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the weights that fit the targets, ridge included."""
    system = kernel + np.float32(_RIDGE) * np.eye(len(kernel), dtype=np.float32)
    return np.linalg.solve(system, targets).astype(np.float32)


_BOOSTERS = ("medians", "corrections")


@dataclass(frozen=True, slots=True, eq=False)
class BoostedPrior:
    """Boosted trees over dense features, n-gram weights and kernels.

    Attributes:
        linear: medians of groups and n-gram weights.
        kernel: recorded calls.
        medians: boosters of the whole; they differ by their seed.
        corrections: boosters of what the mean of weights and kernels leaves.
        folds: fold priors of other people's replies, which the boosters are told of; or none.

    """

    linear: PriorModel
    kernel: GramKernel
    medians: tuple[lightgbm.Booster, ...]
    corrections: tuple[lightgbm.Booster, ...]
    folds: FoldPriors | None = None

    def log_tokens(self, call: CallFeatures) -> float:
        """Return the expected logarithm of output tokens per choice."""
        base = self.linear.base(call)
        by_grams, alike = self.linear.from_grams(call), self.kernel.values(call)
        row = tree_inputs(call, base, by_grams, alike, self.folds)[None]
        whole = _mean_of(self.medians, row)
        corrected = blended(by_grams, alike) + _mean_of(self.corrections, row)
        return base + 0.5 * (whole + corrected)


def blended(by_grams: float, alike: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the mean of what n-gram weights and kernels say: they err in different places."""
    return (by_grams + float(sum(alike))) / (1 + len(alike))


def tree_inputs(
    call: CallFeatures,
    base: float,
    by_grams: float,
    alike: Sequence[float] | NDArray[np.float64],
    folds: FoldPriors | None,
) -> NDArray[np.float64]:
    """Return what the boosters see of a call."""
    sums = [base + value for value in (by_grams, *alike)]
    blend = blended(by_grams, alike)
    elsewhere = [] if folds is None else [folds.log_tokens(call)]
    gaps = [value - base for value in elsewhere]
    return np.array(
        [base, by_grams, *alike, *sums, blend, base + blend, *elsewhere, *gaps, *call.dense]
    )


def _mean_of(boosters: Sequence[lightgbm.Booster], row: NDArray[np.float64]) -> float:
    # One row is no work for threads: all cores at once take eight times as long.
    values = [float(np.asarray(booster.predict(row, num_threads=1))[0]) for booster in boosters]
    return sum(values) / len(values)


def boosted_arrays(prior: BoostedPrior) -> dict[str, NDArray[Any]]:
    """Return kernel and boosters as arrays; boosters in LightGBM's own text, as bytes."""
    kernel = prior.kernel
    ends = np.append(kernel.starts[1:], kernel.grams.size)
    arrays: dict[str, NDArray[Any]] = {
        "kernel_grams": kernel.grams.astype(np.uint16),
        "kernel_sizes": (ends - kernel.starts).astype(np.uint32),
        "kernel_dense": kernel.dense,
        "kernel_routes": kernel.routes,
        "kernel_weights": kernel.weights,
    }
    for name in _BOOSTERS:
        for number, booster in enumerate(getattr(prior, name)):
            text = booster.model_to_string().encode()
            arrays[f"{name}_{number}"] = np.frombuffer(text, np.uint8)
    return arrays


def boosted_from(
    arrays: dict[str, NDArray[Any]], linear: PriorModel, folds: FoldPriors | None
) -> BoostedPrior:
    """Return what `boosted_arrays` took apart, on top of its linear part and its fold priors.

    Raises:
        StateError: LightGBM cannot read a booster.
        KeyError: a part is missing.

    """
    sizes = arrays["kernel_sizes"].astype(np.int64)
    kernel = GramKernel(
        grams=arrays["kernel_grams"].astype(np.int64),
        starts=np.cumsum(sizes) - sizes,
        roots=np.sqrt(sizes).astype(np.float32),
        dense=arrays["kernel_dense"],
        routes=arrays["kernel_routes"],
        weights=arrays["kernel_weights"],
    )
    medians, corrections = (_boosters(arrays, name) for name in _BOOSTERS)
    return BoostedPrior(linear, kernel, medians, corrections, folds)


def _boosters(arrays: dict[str, NDArray[Any]], name: str) -> tuple[lightgbm.Booster, ...]:
    """Return the boosters that a file holds under a name."""
    out: list[lightgbm.Booster] = []
    while (text := arrays.get(f"{name}_{len(out)}")) is not None:
        try:
            model = text.tobytes().decode()
            out.append(lightgbm.Booster(model_str=model))
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise StateError(f"LightGBM cannot read its part {name}_{len(out)}: {error}") from error
    if not out:
        raise KeyError(f"{name}_0")
    return tuple(out)
