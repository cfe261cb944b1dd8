"""What an online model has to forget of a replay before it is frozen: where chance left it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from penstock.predict.features.call import CallFeatures
from penstock.predict.online.model import PRIOR, OnlineModel, group_keys


@dataclass(frozen=True, slots=True)
class _Noted:
    keys: tuple[str, ...]
    experts: list[float]
    errors: list[float]
    prior: float
    spread: float
    log_tokens: float


class PriorReplay:
    """Notes a stream of recorded replies, and settles a model over the whole of it.

    Offsets, the mixture's weights and the residuals of p90 follow the last 50 to 200 replies, as
    they must where traffic drifts. Recorded replies in random order do not drift: there,
    following is noise, and all of them say more than the last.
    """

    def __init__(self) -> None:
        """Start with nothing noted."""
        self._noted: list[_Noted] = []

    def note(self, model: OnlineModel, call: CallFeatures, log_tokens: float) -> None:
        """Note what the model says of a reply that it has not learned yet."""
        seen = model.outlook(call)
        errors = model.errors(seen, log_tokens)
        self._noted.append(
            _Noted(group_keys(call), seen.experts, errors, seen.prior, seen.spread, log_tokens)
        )

    def settle(self, model: OnlineModel) -> None:
        """Put offsets, mixture and p90 to where the whole replay has them, in this order."""
        model.absorb()
        offsets: dict[str, list[float]] = defaultdict(list)
        errors: dict[str, list[list[float]]] = defaultdict(list)
        for item in self._noted:
            errors[item.keys[-1]].append(item.errors)
            for key in item.keys:
                offsets[key].append(item.log_tokens - item.prior)
        model.offsets.settle(offsets)
        model.mix.settle(errors)
        residuals: dict[str, list[float]] = defaultdict(list)
        for item in self._noted:
            experts = list(item.experts)
            experts[PRIOR] = item.prior + model.offsets.value(item.keys)
            weights = model.mix.weights(item.keys[-1])
            middle = sum(w * e for w, e in zip(weights, experts, strict=True))
            for key in item.keys:
                residuals[key].append((item.log_tokens - middle) / item.spread)
        model.p90.settle(residuals)
        model.changed()
