"""Reads a saved state again, if it is sound and was learned on top of the prior at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features import DENSE_NAMES
from penstock.predict.online import NO_PRIOR, SHIPPED, TRAINED, OnlineModel
from penstock.predict.packed_file import StateError, unpack
from penstock.predict.prior import LogTokens
from penstock.predict.prior_file import checksum_of, shipped_prior
from penstock.predict.snapshot import STATE_KIND, STATE_VERSION

_TRUST = {"predictor:online": NO_PRIOR, "predictor:shipped": SHIPPED, "predictor:trained": TRAINED}
_STARTS = {
    "predictor:online": "no prior",
    "predictor:shipped": "the shipped prior or one like it",
    "predictor:trained": "a prior of your own",
}


class OtherPriorError(StateError):
    """A saved state that is sound, but was learned on top of another prior."""


def read_state(
    path: Path, *, prior: LogTokens | None, start: str | None = None
) -> tuple[OnlineModel, str]:
    """Return the model that was saved and its source; on top of `prior` if it needs one.

    Args:
        path: the file.
        prior: what the model was learned on; the shipped one is found by itself.
        start: the only source that is wanted; any if None.

    Raises:
        OtherPriorError: it was learned on another prior than the given one.
        StateError: the file is damaged or of another version.
        OSError: it cannot be read.

    """
    arrays, meta = unpack(path, kind=STATE_KIND, version=STATE_VERSION)
    try:
        if meta["dense"] != list(DENSE_NAMES):
            raise StateError(f"{path}: was learned on other features; remove it to start anew")
        source = meta["source"]
        if prior is None and source == "predictor:shipped" and start in (None, source):
            prior = shipped_prior()
        _check_prior(path, meta, prior, start or _start(prior, source))
        model = OnlineModel(prior, _TRUST[source])
        _restore(model, arrays, meta)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, StateError):
            raise
        raise StateError(
            f"{path}: its parts do not fit together ({error!r}): remove it, and penstock "
            "starts without it"
        ) from error
    return model, source


def _start(prior: LogTokens | None, source: str) -> str:
    """Return what a model on this prior may call its source: the file's word, where it can be."""
    if prior is None:
        return "predictor:online"
    return "predictor:trained" if source == "predictor:online" else source


def _check_prior(path: Path, meta: dict[str, Any], prior: LogTokens | None, start: str) -> None:
    """Refuse a model that was learned on another prior: what it learned are corrections to that.

    States of before checksums have none, and are taken at their word.
    """
    source = meta["source"]
    if source != start:
        raise OtherPriorError(
            f"{path}: was learned on top of {_STARTS[source]}, not of {_STARTS[start]}; load it "
            "with what it was learned on, or remove it to start anew"
        )
    learned_on, given = int(meta.get("prior", 0)), checksum_of(prior)
    if learned_on and given and learned_on != given:
        raise OtherPriorError(
            f"{path}: was learned on top of {_STARTS[source]}, but of another one than this: its "
            f"checksum was {learned_on:08x} and is {given:08x}; was it trained anew? Load it with "
            "the one it was learned on, or remove it to start anew"
        )


def _restore(model: OnlineModel, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise StateError(f"{name} holds numbers that are not finite")
    kernel = model.kernel
    kept = arrays["kernel_lengths"].size
    kernel.signatures[:, :kept] = arrays["kernel_signatures"]
    kernel.dense[:kept] = arrays["kernel_dense"]
    kernel.routes[:kept] = arrays["kernel_routes"]
    kernel.groups[:kept] = arrays["kernel_groups"]
    kernel.lengths[:kept] = arrays["kernel_lengths"]
    kernel.targets[:kept] = arrays["kernel_targets"]
    kernel.count = int(meta["kernel_count"])
    kernel.weights[:kept] = arrays["kernel_weights"]
    kernel.rebuild()
    model.grams.weights[:] = arrays["gram_weights"]
    model.grams.variances[:] = arrays["gram_variances"]
    model.stack.weights[:] = arrays["stack_weights"]
    model.stack.covariance[:] = arrays["stack_covariance"]
    model.centres.restore(meta["centres"])
    model.offsets.restore(meta["offsets"])
    model.biases.restore(meta["biases"])
    model.p90.restore(meta["p90"])
    model.p90.alarms = int(meta["alarms"])
    model.mix.total = [float(loss) for loss in meta["mix_total"]]
    for key, losses in meta["mix_groups"]:
        model.mix.groups.put(key, [float(loss) for loss in losses])
    model.dismiss()
    model.replies = int(meta["replies"])
