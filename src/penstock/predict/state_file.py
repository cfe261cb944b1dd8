"""The learned state as a file: versioned, checked, without a word of any prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features import DENSE_NAMES
from penstock.predict.online import NO_PRIOR, SHIPPED, TRAINED, OnlineModel
from penstock.predict.packed_file import StateError, pack, unpack, write_whole
from penstock.predict.prior import LogTokens
from penstock.predict.prior_file import shipped_prior

STATE_VERSION = 1
_TRUST = {"predictor:online": NO_PRIOR, "predictor:shipped": SHIPPED, "predictor:trained": TRAINED}
_KIND = "penstock predictor state"


def write_state(path: Path, model: OnlineModel, *, source: str) -> None:
    """Save a model."""
    write_whole(path, state_bytes(model, source=source))


def state_bytes(model: OnlineModel, *, source: str) -> bytes:
    """Return a model's learned state as the content of its file."""
    kept = min(model.kernel.count, model.kernel.size)
    kernel = model.kernel
    arrays: dict[str, NDArray[Any]] = {
        "kernel_signatures": kernel.signatures[:, :kept],
        "kernel_dense": kernel.dense[:kept].astype(np.float16),
        "kernel_routes": kernel.routes[:kept],
        "kernel_groups": kernel.groups[:kept],
        "kernel_lengths": kernel.lengths[:kept],
        "kernel_targets": kernel.targets[:kept],
        "kernel_weights": kernel.weights[:kept],
        "gram_weights": model.grams.weights.astype(np.float16),
        "gram_variances": model.grams.variances.astype(np.float16),
        "stack_weights": model.stack.weights,
        "stack_covariance": model.stack.covariance,
    }
    meta = {
        "kind": _KIND,
        "version": STATE_VERSION,
        "dense": list(DENSE_NAMES),
        "source": source,
        "replies": model.replies,
        "kernel_count": kernel.count,
        "centres": model.centres.export(),
        "offsets": model.offsets.export(),
        "biases": model.biases.export(),
        "p90": model.p90.export(),
        "mix_total": model.mix.total,
        "mix_groups": list(model.mix.groups.items()),
        "alarms": model.p90.alarms,
    }
    return pack(arrays, _rounded(meta))


def read_state(path: Path, *, prior: LogTokens | None) -> tuple[OnlineModel, str]:
    """Return the model that was saved and its source; on top of `prior` if it needs one.

    Raises:
        StateError: the file is damaged or of another version, or needs a prior.
        OSError: it cannot be read.

    """
    arrays, meta = unpack(path, kind=_KIND, version=STATE_VERSION)
    try:
        if meta["dense"] != list(DENSE_NAMES):
            raise StateError(f"{path}: was learned on other features; remove it to start anew")
        source = meta["source"]
        if prior is None and source == "predictor:shipped":
            prior = shipped_prior()
        if prior is None and source != "predictor:online":
            raise StateError(
                f"{path}: was learned on top of a trained prior ({source}); load it with that "
                "prior, or remove it to start anew"
            )
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


def _rounded(value: Any) -> Any:
    """Return JSON with floats of four digits: enough for logarithms, a third of the bytes."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
