"""The learned state as a file: versioned, checked, without a word of any prompt."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import PenstockError
from penstock.predict.features import DENSE_NAMES
from penstock.predict.online import NO_PRIOR, SHIPPED, TRAINED, OnlineModel
from penstock.predict.prior import LogTokens

STATE_VERSION = 1
_TRUST = {"predictor:online": NO_PRIOR, "predictor:shipped": SHIPPED, "predictor:trained": TRAINED}
_MAX_BYTES = 64 * 1024 * 1024


class StateError(PenstockError, ValueError):
    """A saved state that cannot be used; the text says what is wrong and what to do."""


def pack(arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> bytes:
    """Return arrays and JSON as one compressed file with checksums."""
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(meta, sort_keys=True).encode(), np.uint8)
    np.savez_compressed(buffer, allow_pickle=False, meta=text, **arrays)
    return buffer.getvalue()


def unpack(path: Path, *, kind: str, version: int) -> tuple[dict[str, NDArray[Any]], Any]:
    """Return arrays and JSON of a file that `pack` made.

    Raises:
        StateError: it is damaged, too large, of another kind or version.
        OSError: it cannot be read.

    """
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise StateError(f"{path}: {size} bytes are no {kind} file; the limit is {_MAX_BYTES}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop("meta").tobytes())
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise StateError(
            f"{path}: not a readable {kind} file ({error}): was it cut short? Remove it, and "
            "penstock starts without it"
        ) from error
    if not isinstance(meta, dict) or (meta.get("kind"), meta.get("version")) != (kind, version):
        found = meta if not isinstance(meta, dict) else (meta.get("kind"), meta.get("version"))
        raise StateError(
            f"{path}: holds {found!r}, this penstock reads {(kind, version)!r}: was it written "
            "by another version? Remove it, and penstock starts without it"
        )
    return arrays, meta


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a half."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


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
        "gram_weights": model.grams.weights.astype(np.float16),
        "gram_variances": model.grams.variances.astype(np.float16),
        "stack_weights": model.stack.weights,
        "stack_covariance": model.stack.covariance,
        "spread_weights": model.spread.weights,
        "spread_covariance": model.spread.covariance,
    }
    meta = {
        "kind": "penstock predictor state",
        "version": STATE_VERSION,
        "dense": list(DENSE_NAMES),
        "source": source,
        "replies": model.replies,
        "kernel_count": kernel.count,
        "medians": model.medians.export(),
        "offsets": model.offsets.export(),
        "p90": model.p90.export(),
        "mix_total": model.mix.total,
        "mix_groups": list(model.mix.groups.items()),
        "alarms": model.p90.alarms,
    }
    return pack(arrays, _rounded(meta))


def read_state(path: Path, *, prior: LogTokens | None) -> OnlineModel:
    """Return the model that was saved, on top of `prior`.

    Raises:
        StateError: the file is damaged or of another version.
        OSError: it cannot be read.

    """
    arrays, meta = unpack(path, kind="penstock predictor state", version=STATE_VERSION)
    try:
        if meta["dense"] != list(DENSE_NAMES):
            raise StateError(f"{path}: was learned on other features; remove it to start anew")
        trust = _TRUST[meta["source"]] if prior is not None else NO_PRIOR
        model = OnlineModel(prior, trust)
        _restore(model, arrays, meta)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, StateError):
            raise
        raise StateError(
            f"{path}: its parts do not fit together ({error!r}): remove it, and penstock "
            "starts without it"
        ) from error
    return model


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
    kernel.rebuild()
    model.grams.weights[:] = arrays["gram_weights"]
    model.grams.variances[:] = arrays["gram_variances"]
    model.stack.weights[:] = arrays["stack_weights"]
    model.stack.covariance[:] = arrays["stack_covariance"]
    model.spread.weights[:] = arrays["spread_weights"]
    model.spread.covariance[:] = arrays["spread_covariance"]
    model.medians.restore(meta["medians"])
    model.offsets.restore(meta["offsets"])
    model.p90.restore(meta["p90"])
    model.p90.alarms = int(meta["alarms"])
    model.mix.total = [float(loss) for loss in meta["mix_total"]]
    for key, losses in meta["mix_groups"]:
        model.mix.groups[key] = [float(loss) for loss in losses]
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
