"""The online model: all that is learned from the user's own replies."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.predict.call import CallFeatures
from penstock.predict.conformal import ConformalP90
from penstock.predict.features import DENSE_NAMES
from penstock.predict.gram_weights import GramWeights
from penstock.predict.groups import GroupMedians
from penstock.predict.kernel_window import KernelWindow
from penstock.predict.mixing import ExpertMix
from penstock.predict.prior import LogTokens
from penstock.predict.regression import RecursiveRegression

_GROUPS_MAX = 400
_START = math.log(200.0)
_SPREAD_MIN = 0.1
_AFTER_ALARM = 20  # replies of a group that are kept when its p90 fails
_EXTRA = 4  # stacked beside the dense features: one, kernel, grams, prior


@dataclass(slots=True)
class Outlook:
    """A prediction taken apart, in log tokens per choice.

    Attributes:
        base: the median of the call's group.
        row: how alike the call is to each kept one.
        stacked: what the stacked regression sees.
        experts: what each expert says: calls alike, stacked regression, prior.
        middle: the mixture of the experts.
        spread: expected size of the error.
        above: p90 over the middle.

    """

    base: float
    row: NDArray[np.float32]
    stacked: NDArray[np.float32]
    experts: list[float]
    middle: float
    spread: float
    above: float


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a prior is trusted at the start.

    Attributes:
        offset_replies: so many replies of a group weigh as much as "the prior is right here".
        start_losses: of the experts, in summed log error; see `ExpertMix`.

    """

    offset_replies: float
    start_losses: tuple[float, float, float]


NO_PRIOR = Trust(1.0, (0.0, 0.0, 50.0))
SHIPPED = Trust(2.0, (1.0, 1.0, 0.0))
TRAINED = Trust(20.0, (3.0, 3.0, 0.0))


class OnlineModel:
    """Experts that learn from every reply, mixed by how they did lately."""

    def __init__(self, prior: LogTokens | None, trust: Trust = NO_PRIOR) -> None:
        """Start cold, or from a prior."""
        size = len(DENSE_NAMES) + _EXTRA
        self.prior = prior
        self.medians = GroupMedians(window=100, shrink=0.5, limit=_GROUPS_MAX, start=_START)
        self.offsets = GroupMedians(
            window=100, shrink=trust.offset_replies, limit=_GROUPS_MAX, start=0.0
        )
        self.kernel = KernelWindow(len(DENSE_NAMES))
        self.grams = GramWeights()
        start = np.zeros(size, np.float32)
        start[1:3] = 0.6, 0.3
        self.stack = RecursiveRegression(start, np.full(size, 0.02, np.float32))
        spread = np.zeros(size, np.float32)
        spread[0] = 0.35
        self.spread = RecursiveRegression(spread, np.full(size, 0.01, np.float32))
        self.mix = ExpertMix(trust.start_losses)
        self.p90 = ConformalP90()
        self.replies = 0

    def outlook(self, call: CallFeatures) -> Outlook:
        """Return what is to be expected of a call."""
        keys = group_keys(call)
        base = self.medians.value(keys)
        row = self.kernel.row(call.grams, call.dense, zlib.crc32(call.route.encode()))
        kernel = self.kernel.value(row)
        prior = base
        if self.prior is not None:
            prior = self.prior.log_tokens(call) + self.offsets.value(keys)
        stacked = np.empty(_EXTRA + call.dense.size, np.float32)
        stacked[:_EXTRA] = 1.0, kernel, self.grams.value(call.grams), prior - base
        stacked[_EXTRA:] = call.dense
        experts = [base + kernel, base + self.stack.value(stacked), prior]
        weights = self.mix.weights(keys[-1])
        middle = sum(w * e for w, e in zip(weights, experts, strict=True))
        spread = max(_SPREAD_MIN, self.spread.value(stacked))
        return Outlook(
            base, row, stacked, experts, middle, spread, spread * self.p90.above(keys)
        )

    def learn(self, call: CallFeatures, log_tokens: float) -> None:
        """Take in the logarithm of the real output tokens per choice."""
        seen = self.outlook(call)
        keys = group_keys(call)
        error = log_tokens - seen.middle
        self.mix.learn(keys[-1], [abs(log_tokens - expert) for expert in seen.experts])
        if self.p90.learn(keys, error / seen.spread, covered=error <= seen.above + 1e-9):
            self.medians.keep_last(keys[-1], _AFTER_ALARM)
            self.offsets.keep_last(keys[-1], _AFTER_ALARM)
        self.spread.learn(seen.stacked, abs(error))
        residual = min(2.0, max(-2.0, log_tokens - seen.base))
        self.stack.learn(seen.stacked, residual)
        self.grams.learn(call.grams, residual - float(seen.stacked[2]))
        self.medians.add(keys, log_tokens)
        group = zlib.crc32(keys[-1].encode())
        route = zlib.crc32(call.route.encode())
        base = self.medians.value(keys)
        self.kernel.add(seen.row, call.grams, call.dense, route, group, log_tokens, base)
        if self.prior is not None:
            self.offsets.add(keys, log_tokens - self.prior.log_tokens(call))
        self.replies += 1


def group_keys(call: CallFeatures) -> tuple[str, ...]:
    """Return the groups of a call, from wide to narrow."""
    return ("", call.route, f"{call.model}\0{call.route}")
