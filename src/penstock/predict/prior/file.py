"""A trained prior as a file."""

from __future__ import annotations

import zlib
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from penstock.predict.archive import StateError, pack, unpack, write_whole
from penstock.predict.features.call import DENSE_NAMES
from penstock.predict.prior.folds import FoldPriors, shipped_folds
from penstock.predict.prior.model import LogTokens, PriorModel, arrays_of, prior_of

if TYPE_CHECKING:
    from penstock.predict.prior.boosted import BoostedPrior

PRIOR_VERSION = 1
_KIND = "penstock prior"


def shipped_prior() -> LogTokens:
    """Return the prior that comes with penstock; see `prior/CARD.md` for what it is made of.

    Raises:
        StateError: the installation's file is damaged.

    """
    with resources.as_file(resources.files("penstock.predict") / "prior" / "prior.npz") as path:
        return read_prior(path)


def write_prior(path: Path, prior: LogTokens) -> None:
    """Save a trained prior, of numpy alone or of boosted trees; a wider prior is saved within.

    Raises:
        StateError: it is of a kind that no file is made for.
        OSError: it cannot be written.

    """
    arrays: dict[str, NDArray[Any]] = {}
    boosted = _boosted_part(prior)
    linear = prior if boosted is None else boosted.linear
    if boosted is not None:
        from penstock.predict.prior.boosted import boosted_arrays

        arrays |= boosted_arrays(boosted)
    folds = None if boosted is None else boosted.folds
    if folds is not None and folds.checksum != shipped_folds().checksum:
        raise StateError("a prior beside fold priors other than the shipped ones cannot be saved")
    if not isinstance(linear, PriorModel) or not isinstance(linear.wider, PriorModel | None):
        raise StateError(f"a prior of type {type(linear).__name__} over another cannot be saved")
    parts = {"": linear} if linear.wider is None else {"": linear, "wider_": linear.wider}
    metas = {}
    for prefix, part in parts.items():
        # Boosters ask for thresholds: what they are shown must be the same to the last digit.
        exact = boosted is not None and prefix == ""
        arrays |= arrays_of(part, prefix + "{}", exact=exact)
        metas[prefix] = {"start": part.start, "bases": part.bases, "verbosity": part.verbosity}
    meta = {
        "kind": _KIND,
        "version": PRIOR_VERSION,
        "learner": "numpy" if boosted is None else "boosted",
        "dense": list(DENSE_NAMES),
        "parts": metas,
    }
    if folds is not None:
        meta["folds"] = folds.checksum
    write_whole(path, pack(arrays, meta))


def _boosted_part(prior: LogTokens) -> BoostedPrior | None:
    """Return a prior of boosted trees as such, without importing LightGBM for any other."""
    if isinstance(prior, PriorModel) or find_spec("lightgbm") is None:
        return None
    from penstock.predict.prior.boosted import BoostedPrior

    return prior if isinstance(prior, BoostedPrior) else None


def read_prior(path: Path) -> LogTokens:
    """Return the prior saved at `path`.

    Raises:
        StateError: the file is damaged, of another version, or needs LightGBM where there is none.
        OSError: it cannot be read.

    """
    arrays, meta = unpack(path, kind=_KIND, version=PRIOR_VERSION)
    if meta.get("dense") != list(DENSE_NAMES):
        raise StateError(f"{path}: was trained on other features; train it again")
    boosted = meta.get("learner", "numpy") == "boosted"
    if boosted and find_spec("lightgbm") is None:
        raise StateError(
            f"{path}: was trained with --learner boosted and LightGBM is not installed here: pip "
            "install penstock[boosted], or train it with --learner numpy"
        )
    try:
        linear = _linear(arrays, meta["parts"])
        linear.checksum = zlib.crc32(path.read_bytes())
        if not boosted:
            return linear
        from penstock.predict.prior.boosted import boosted_from

        return boosted_from(arrays, linear, _folds(meta))
    except StateError as error:
        raise StateError(f"{path}: {error}; train it again") from error
    except (KeyError, TypeError) as error:
        raise StateError(f"{path}: its parts do not fit together ({error!r})") from error


def checksum_of(prior: LogTokens | None) -> int:
    """Return the checksum of the file that a prior came from; 0 if it came from none."""
    return int(getattr(getattr(prior, "linear", prior), "checksum", 0))


def _folds(meta: dict[str, Any]) -> FoldPriors | None:
    """Return the shipped fold priors if the prior was trained beside them."""
    if not meta.get("folds"):
        return None
    folds = shipped_folds()
    if folds.checksum != meta["folds"]:
        raise StateError("was trained by a penstock that shipped other fold priors")
    return folds


def _linear(arrays: dict[str, NDArray[Any]], facts_of: dict[str, Any]) -> PriorModel:
    parts = {prefix: prior_of(arrays, prefix + "{}", **facts) for prefix, facts in facts_of.items()}
    parts[""].wider = parts.get("wider_")
    return parts[""]
