"""Boosted trees as arrays and text, so that a file can hold them."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from penstock.predict.boosted import BoostedPrior
from penstock.predict.fold_priors import FoldPriors
from penstock.predict.gram_kernel import GramKernel
from penstock.predict.packed_file import StateError
from penstock.predict.prior import PriorModel

_BOOSTERS = ("medians", "corrections")


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
