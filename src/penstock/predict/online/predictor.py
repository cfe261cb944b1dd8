"""The predictor that schedulers ask; its learned state as a file, without a word of any prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from penstock.core.model import TokenEstimate
from penstock.predict.archive import StateError, pack, unpack, write_whole
from penstock.predict.features.call import DENSE_NAMES, CallFeatures
from penstock.predict.online.kernel_window import SIZE
from penstock.predict.online.model import NO_PRIOR, SHIPPED, TRAINED, OnlineModel
from penstock.predict.prior.file import checksum_of, shipped_prior
from penstock.predict.prior.model import LogTokens, PriorModel

STATE_VERSION = 2
STATE_KIND = "penstock predictor state"
_TRUST = {"predictor:online": NO_PRIOR, "predictor:shipped": SHIPPED, "predictor:trained": TRAINED}
_STARTS = {
    "predictor:online": "no prior",
    "predictor:shipped": "the shipped prior or one like it",
    "predictor:trained": "a prior of your own",
}


@dataclass(frozen=True, slots=True)
class ModelCopy:
    """What a model had learned at one moment: a copy, so that the model may go on learning.

    Taking it is quick (1 to 4 ms with 100 routes). Making a file of it takes 0.1 to 0.2 s, and
    may be done in any thread.
    """

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]

    def packed(self) -> bytes:
        """Return the content of its file."""
        return pack(self.arrays, _rounded(self.meta))

    def write(self, path: Path) -> None:
        """Write its file, whole or not at all.

        Raises:
            OSError: the place cannot be written.

        """
        write_whole(path, self.packed())


def snapshot(model: OnlineModel, *, source: str) -> ModelCopy:
    """Return a copy of what a model has learned."""
    model.absorb()
    kept = min(model.kernel.count, SIZE)
    kernel = model.kernel
    arrays: dict[str, NDArray[Any]] = {
        "kernel_signatures": kernel.signatures[:, :kept].copy(),
        "kernel_dense": kernel.dense[:kept].astype(np.float16),
        "kernel_routes": kernel.routes[:kept].copy(),
        "kernel_groups": kernel.groups[:kept].copy(),
        "kernel_lengths": kernel.lengths[:kept].copy(),
        "kernel_targets": kernel.targets[:kept].copy(),
        "kernel_weights": kernel.weights[:kept].copy(),
        "gram_weights": model.grams.weights.astype(np.float16),
        "gram_variances": model.grams.variances.astype(np.float16),
        "stack_weights": model.stack.weights.copy(),
        "stack_covariance": model.stack.covariance.copy(),
    }
    meta = {
        "kind": STATE_KIND,
        "version": STATE_VERSION,
        "dense": list(DENSE_NAMES),
        "source": source,
        "prior": checksum_of(model.prior),
        "replies": model.replies,
        "kernel_count": kernel.count,
        "centres": model.centres.export(),
        "offsets": model.offsets.export(),
        "biases": model.biases.export(),
        "p90": model.p90.export(),
        "mix_total": list(model.mix.total),
        "mix_groups": [(key, list(losses)) for key, losses in model.mix.groups.items()],
        "alarms": model.p90.alarms,
    }
    return ModelCopy(arrays, meta)


def state_bytes(model: OnlineModel, *, source: str) -> bytes:
    """Return a model's learned state as the content of its file."""
    return snapshot(model, source=source).packed()


def _rounded(value: Any) -> Any:
    """Return JSON with floats of four digits: enough for logarithms, a third of the bytes."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [round(v, 4) if isinstance(v, float) else _rounded(v) for v in value]
    return value


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
    """Refuse a model that was learned on another prior: what it learned are corrections to that."""
    source = meta["source"]
    if source != start:
        raise OtherPriorError(
            f"{path}: was learned on top of {_STARTS[source]}, not of {_STARTS[start]}; load it "
            "with what it was learned on, or remove it to start anew"
        )
    learned_on, given = int(meta["prior"]), checksum_of(prior)
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
    model.changed()
    model.replies = int(meta["replies"])


USUAL = "predictor:usual"
"""The source of an estimate that is what replies of a kind usually have."""
_KNOWN_AFTER = 50  # replies of a kind: of fewer a p90 is a matter of one or two of them
_MOST_ABOVE, _MOST_BELOW = 2.0, 3.0
"""Replies of a kind are alike where the p90 is so many times the median at most, and that so many
times the p10. Labelled routes of the GPT-4 mix are, 84 % of its calls; all in one kind are not."""


class OnlinePredictor:
    """Estimates a call's output tokens and learns from what the reply really had.

    Not safe to use from two threads at once; `GuardedPredictor` lets in one at a time.
    """

    def __init__(self, model: OnlineModel, *, source: str) -> None:
        """Wrap a model; use `cold`, `shipped`, `with_prior` or `load` to get one."""
        self.model = model
        self.source = source

    @classmethod
    def cold(cls) -> Self:
        """Return a predictor that knows nothing yet."""
        return cls(OnlineModel(None, NO_PRIOR), source="predictor:online")

    @classmethod
    def shipped(cls) -> Self:
        """Return a predictor that starts from the prior shipped with penstock.

        Raises:
            StateError: the installation's prior file is damaged.

        """
        return cls.from_prior(shipped_prior())

    @classmethod
    def from_prior(cls, prior: LogTokens) -> Self:
        """Return a predictor that starts from a prior that knows no routes of the user's."""
        return cls(OnlineModel(prior, SHIPPED), source="predictor:shipped")

    @classmethod
    def with_prior(cls, prior: LogTokens) -> Self:
        """Return a predictor that starts from a prior trained on the user's own records."""
        return cls(OnlineModel(prior, TRAINED), source="predictor:trained")

    @classmethod
    def starting_from(cls, prior: LogTokens) -> Self:
        """Return a predictor on a prior of either kind: with routes of the user's, or without."""
        if isinstance(prior, PriorModel) and not prior.bases:
            return cls.from_prior(prior)
        return cls.with_prior(prior)

    def predict(self, call: CallFeatures) -> TokenEstimate:
        """Return p50 and p90 of all output tokens of the call, at most what it allows."""
        seen = self.model.outlook(call)
        p50 = _at_least_one(seen.middle) * call.choices
        p90 = _at_least_one(seen.middle + seen.above) * call.choices
        cap = max(1.0, call.cap_tokens)
        p50 = min(p50, cap)
        return TokenEstimate(p50, max(p50, min(p90, cap)), self.source)

    def usual(self, kind: str) -> TokenEstimate | None:
        """Return what a reply to a call of this kind usually has, before any cap; see `kind_of`.

        The quantiles of the last replies of its group; None where too few are known, or they
        differ much. It costs a hundredth of a prediction, which knows better by the call's texts.
        """
        found = self.model.centres.quantiles(kind, (0.1, 0.5, 0.9), at_least=_KNOWN_AFTER)
        if found is None:
            return None
        p10, p50, p90 = map(_at_least_one, found)
        alike = p90 <= _MOST_ABOVE * p50 and p50 <= _MOST_BELOW * p10
        return TokenEstimate(p50, p90, USUAL) if alike else None

    def learn(self, call: CallFeatures, output_tokens: int) -> None:
        """Take note of the real output tokens over all choices; 0 counts as 1.

        Raises:
            ValueError: the count is negative, or no finite number.

        """
        if not 0 <= output_tokens < math.inf:
            raise ValueError(
                f"output_tokens={output_tokens} is not a count: was a reply without usage "
                "handed over? Leave it out instead."
            )
        self.model.learn(call, math.log(max(1.0, output_tokens / call.choices)))

    def save(self, path: Path) -> None:
        """Write what was learned: no prompt text, no prior. Appears whole or not at all.

        Raises:
            OSError: the place cannot be written.

        """
        self.snapshot().write(path)

    def snapshot(self) -> ModelCopy:
        """Return a copy of what was learned, which another thread may write to a file."""
        return snapshot(self.model, source=self.source)

    @classmethod
    def load(cls, path: Path, *, prior: LogTokens | None = None) -> Self:
        """Return the predictor that was saved at `path`.

        Args:
            path: as given to `save`.
            prior: what the saved predictor started from, if that was a prior of the user's own;
                the shipped one is found by itself.

        Raises:
            OtherPriorError: it was learned on another prior, or needs one that was not given.
            StateError: the file is damaged, of another version or no state at all.
            OSError: it cannot be read.

        """
        model, source = read_state(path, prior=prior)
        return cls(model, source=source)

    def restored(self, path: Path) -> Self:
        """Return the predictor that was saved at `path`, if it started where this one starts.

        Raises:
            OtherPriorError: it started from something else.
            StateError: the file is damaged, of another version or no state at all.
            OSError: it cannot be read.

        """
        model, source = read_state(path, prior=self.model.prior, start=self.source)
        return type(self)(model, source=source)


def _at_least_one(log_tokens: float) -> float:
    """Return tokens from their logarithm, within 1 and a million; NaN is a ValueError."""
    if math.isnan(log_tokens):
        raise ValueError("the predictor's own figures are not numbers (NaN)")
    return math.exp(min(13.8, max(0.0, log_tokens)))
