"""Priors that each left out a fold of prompts: what a training may be told of its own prompts."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.predict.archive import StateError, pack, unpack, write_whole
from penstock.predict.features.call import DENSE_NAMES, CallFeatures
from penstock.predict.prior.model import PriorModel, arrays_of, prior_of

_KIND = "penstock fold priors"
_VERSION = 1
FOLDS = 5


def fold_of(call: CallFeatures) -> int:
    """Return the fold of a call. Prompts with the same n-grams fall into the same one."""
    total = int(call.grams.astype(np.int64).sum()) * 2654435761 + call.grams.size
    return (total >> 7) % FOLDS


@dataclass(frozen=True, slots=True, eq=False)
class FoldPriors:
    """Priors of one training set, each without the prompts of one fold.

    A call is told by the prior that has not seen its fold. A prior that has seen a prompt knows
    it better than it will know any prompt to come, and a model trained on top of what it says
    would trust it too far.

    Source:
        Stacked generalisation: Wolpert, Neural Networks 1992.

    Attributes:
        priors: by the fold left out.
        checksum: of the file they came from; 0 for those just trained.

    """

    priors: tuple[PriorModel, ...]
    checksum: int = 0

    def log_tokens(self, call: CallFeatures) -> float:
        """Return the expected logarithm of output tokens per choice."""
        return self.priors[fold_of(call)].log_tokens(call)


@cache
def shipped_folds() -> FoldPriors:
    """Return the fold priors that come with penstock, made of what its prior is made of.

    Raises:
        StateError: the installation's file is damaged.

    """
    with resources.as_file(resources.files("penstock.predict") / "prior" / "folds.npz") as path:
        return read_folds(path)


def write_folds(path: Path, folds: FoldPriors) -> None:
    """Save fold priors.

    Raises:
        OSError: they cannot be written.

    """
    arrays: dict[str, NDArray[Any]] = {}
    for number, prior in enumerate(folds.priors):
        arrays |= arrays_of(prior, f"{{}}_{number}")
    meta = {
        "kind": _KIND,
        "version": _VERSION,
        "dense": list(DENSE_NAMES),
        "starts": [prior.start for prior in folds.priors],
        "verbosity": folds.priors[0].verbosity,
    }
    write_whole(path, pack(arrays, meta))


def read_folds(path: Path) -> FoldPriors:
    """Return the fold priors saved at `path`.

    Raises:
        StateError: the file is damaged or of another version.
        OSError: it cannot be read.

    """
    arrays, meta = unpack(path, kind=_KIND, version=_VERSION)
    if meta.get("dense") != list(DENSE_NAMES) or len(meta.get("starts", ())) != FOLDS:
        raise StateError(f"{path}: was trained on other features or folds; train it again")
    try:
        priors = tuple(
            prior_of(arrays, f"{{}}_{number}", start=start, verbosity=meta["verbosity"])
            for number, start in enumerate(meta["starts"])
        )
    except (KeyError, TypeError) as error:
        raise StateError(f"{path}: its parts do not fit together ({error!r})") from error
    return FoldPriors(priors, zlib.crc32(path.read_bytes()))
