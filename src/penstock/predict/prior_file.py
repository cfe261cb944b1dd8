"""A trained prior as a file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features import DENSE_NAMES
from penstock.predict.packed_file import StateError, pack, unpack, write_whole
from penstock.predict.prior import PriorModel, empty_trees
from penstock.predict.trees import ObliviousTrees

PRIOR_VERSION = 1
_KIND = "penstock prior"


def shipped_prior() -> PriorModel:
    """Return the prior that comes with penstock; see `prior/CARD.md` for what it is made of.

    Raises:
        StateError: the installation's file is damaged.

    """
    with resources.as_file(resources.files("penstock.predict") / "prior" / "prior.npz") as path:
        return read_prior(path)


def write_prior(path: Path, prior: PriorModel) -> None:
    """Save a prior whose last stage are oblivious trees; a wider prior is saved within.

    Raises:
        StateError: its last stage belongs to another library, which has its own files.

    """
    parts: dict[str, PriorModel] = {"": prior}
    if isinstance(prior.wider, PriorModel):
        parts["wider_"] = prior.wider
    arrays: dict[str, NDArray[Any]] = {}
    metas = {}
    for prefix, part in parts.items():
        trees = empty_trees() if part.trees is None else part.trees
        if not isinstance(trees, ObliviousTrees):
            raise StateError("a prior with boosted trees of another library cannot be saved")
        arrays[prefix + "grams"] = part.grams.astype(np.float16)
        arrays[prefix + "features"] = trees.features
        arrays[prefix + "thresholds"] = trees.thresholds
        arrays[prefix + "leaves"] = trees.leaves.astype(np.float16)
        metas[prefix] = {
            "start": part.start,
            "bases": part.bases,
            "verbosity": part.verbosity,
        }
    meta = {"kind": _KIND, "version": PRIOR_VERSION, "dense": list(DENSE_NAMES), "parts": metas}
    write_whole(path, pack(arrays, meta))


def read_prior(path: Path) -> PriorModel:
    """Return the prior saved at `path`.

    Raises:
        StateError: the file is damaged, or of another version.
        OSError: it cannot be read.

    """
    arrays, meta = unpack(path, kind=_KIND, version=PRIOR_VERSION)
    if meta.get("dense") != list(DENSE_NAMES):
        raise StateError(f"{path}: was trained on other features; train it again")
    try:
        parts = {}
        for prefix, facts in meta["parts"].items():
            parts[prefix] = PriorModel(
                start=float(facts["start"]),
                bases=facts["bases"],
                verbosity=facts["verbosity"],
                grams=arrays[prefix + "grams"].astype(np.float32),
                trees=ObliviousTrees(
                    arrays[prefix + "features"],
                    arrays[prefix + "thresholds"],
                    arrays[prefix + "leaves"].astype(np.float32),
                ),
            )
    except (KeyError, TypeError) as error:
        raise StateError(f"{path}: its parts do not fit together ({error!r})") from error
    parts[""].wider = parts.get("wider_")
    return parts[""]
