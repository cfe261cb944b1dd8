"""The online model: all that is learned from the user's own replies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features.call import DENSE_NAMES, CallFeatures, checksum
from penstock.predict.online.conformal import ConformalP90
from penstock.predict.online.groups import GroupCentres
from penstock.predict.online.kernel_window import MOST_BEYOND, KernelWindow, signature
from penstock.predict.online.linear import GramWeights, RecursiveRegression
from penstock.predict.online.mixing import ExpertMix
from penstock.predict.prior.model import LogTokens

_START = math.log(200.0)
_SPREAD_MIN = 0.1
_BEYOND_LONGEST = 1.0  # log tokens that p90 may lie above the longest reply remembered
_AFTER_ALARM = 20  # replies of a group that are kept when its p90 fails
PRIOR = 2  # place among the experts
_BATCH_MAX = 16  # replies learned together; of 32, errors after a change are 1 to 4 % larger
_BATCH_SHARE = 32  # a batch is at most about this share (1 in so many) of what is known
_ASKED_MAX = 1000  # estimates remembered: more are in flight nowhere, and those lost are made anew
_NEVER = 2.0  # the error booked for an expert that is not there
_EXTRA = 4  # stacked beside the dense features: one, kernel, grams, prior


@dataclass(slots=True)
class Forecast:
    """A prediction taken apart, in log tokens per choice.

    Attributes:
        base: the mean of the call's group.
        signature: of the call's n-grams, as the kernel keeps it.
        stacked: what the stacked regression sees.
        prior: what the prior says, without the offset learned for the group.
        experts: what each says: calls alike, stacked regression, prior.
        middle: the mixture of the experts.
        spread: expected size of the error.
        above: p90 over the middle.

    """

    base: float
    signature: NDArray[np.uint8]
    stacked: NDArray[np.float32]
    prior: float
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
        eagerness: how decisive a difference in summed losses is; see `ExpertMix`.

    """

    offset_replies: float
    start_losses: tuple[float, float, float]
    eagerness: float = 2.0


_ABSENT = 50.0  # a loss that no expert lives down: there is none in this place
NO_PRIOR = Trust(1.0, (0.0, 0.0, _ABSENT))
# A route's first replies say little about where it lies and whom to believe: both were chosen on
# streams of 50 replies, of models and prompts kept back (bench_predict_stream.py, other seeds).
SHIPPED = Trust(14.0, (2.0, 2.0, 0.0), eagerness=1.0)
TRAINED = Trust(20.0, (3.0, 3.0, 0.0))


class OnlineModel:
    """Experts that learn from every reply, mixed by how they did lately."""

    def __init__(self, prior: LogTokens | None, trust: Trust = NO_PRIOR) -> None:
        """Start cold, or from a prior."""
        size = len(DENSE_NAMES) + _EXTRA
        self.prior = prior
        self.centres = GroupCentres(window=100, shrink=0.5, narrow=4.0, start=_START, mean=True)
        self.offsets = GroupCentres(window=100, shrink=trust.offset_replies, start=0.0, mean=False)
        self.biases = GroupCentres(window=40, shrink=10.0, start=0.0, mean=False)
        self.kernel = KernelWindow(len(DENSE_NAMES))
        self.grams = GramWeights()
        start = np.zeros((2, size), np.float32)
        start[0, 1:3] = 0.6, 0.3  # the length: begin with kernel and n-grams
        start[1, 0] = 0.35  # the size of the error: begin with a constant
        self.stack = RecursiveRegression(start)
        self.mix = ExpertMix(trust.start_losses, eagerness=trust.eagerness)
        self.p90 = ConformalP90()
        self.replies = 0
        self._asked: dict[CallFeatures, Forecast] = {}  # in order, the oldest first
        self._waiting: list[_UnlearntReply] = []

    def outlook(self, call: CallFeatures) -> Forecast:
        """Return what is to be expected of a call, and remember it until its reply is learned.

        What is learned of a reply is by how much the estimate that was given for it was off.
        """
        keys = group_keys(call)
        base = self.centres.value(keys)
        mine = signature(call.grams)
        kernel = self.kernel.value(call, mine)
        stated = prior = base
        if self.prior is not None:
            stated = self.prior.log_tokens(call)
            prior = stated + self.offsets.value(keys)
        stacked = np.empty(_EXTRA + call.dense.size, np.float32)
        stacked[0], stacked[1] = 1.0, kernel  # one by one is faster than four as a tuple
        stacked[2], stacked[3] = self.grams.value(call.grams), prior - base
        stacked[_EXTRA:] = call.dense
        stacked_value, spread = self.stack.values(stacked).tolist()
        bias = self.biases.value(keys[-1:])
        experts = [base + kernel + bias, base + stacked_value + bias, prior]
        weights = self.mix.weights(keys[-1])
        middle = sum(w * e for w, e in zip(weights, experts, strict=True))
        spread = max(_SPREAD_MIN, spread)
        above = min(spread * self.p90.above(keys), self._most_above(keys, middle))
        seen = Forecast(base, mine, stacked, stated, experts, middle, spread, above)
        self._asked[call] = seen
        if len(self._asked) > _ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        return seen

    def _most_above(self, keys: Sequence[str], middle: float) -> float:
        """Return how far p90 may lie above the median, given the longest reply remembered.

        Errors are counted in spreads. After replies all alike a spread is next to nothing, and the
        first error of another kind so many of them that p90 would be in the hundreds of thousands.
        """
        longest = self.centres.most(keys)
        if math.isinf(longest):
            return math.inf
        return max(0.0, longest - middle) + _BEYOND_LONGEST

    def changed(self) -> None:
        """Let go of what was said: some part of the model was changed other than by learning."""
        self._asked.clear()

    def errors(self, seen: Forecast, log_tokens: float) -> list[float]:
        """Return by how much each expert was off, in log tokens."""
        errors = [abs(log_tokens - expert) for expert in seen.experts]
        if self.prior is None:
            errors[PRIOR] = _NEVER
        return errors

    def learn(self, call: CallFeatures, log_tokens: float) -> None:
        """Take in the logarithm of the real output tokens per choice.

        What is known of its group (where its lengths lie, whom to believe, its p90) is learned at
        once, and costs little. Kernel, n-grams and regression learn in batches: see `absorb`.
        """
        if call not in self._asked:
            self.outlook(call)
        seen = self._asked.pop(call)
        keys = group_keys(call)
        error = log_tokens - seen.middle
        self.mix.learn(keys[-1], self.errors(seen, log_tokens))
        if self.p90.learn(keys, error / seen.spread, covered=error <= seen.above + 1e-9):
            self.centres.keep_last(keys[-1], _AFTER_ALARM)
            self.offsets.keep_last(keys[-1], _AFTER_ALARM)
        stacked_value = float(self.stack.values(seen.stacked)[0])
        self.biases.add(
            keys[-1:], log_tokens - seen.base - 0.5 * (stacked_value + float(seen.stacked[1]))
        )
        self.centres.add(keys, log_tokens)
        if self.prior is not None:
            self.offsets.add(keys, log_tokens - seen.prior)
        self._waiting.append(_UnlearntReply(call, seen, keys, log_tokens))
        self.replies += 1
        if len(self._waiting) >= min(_BATCH_MAX, 1 + self.replies // _BATCH_SHARE):
            self.absorb()

    def absorb(self) -> None:
        """Learn the batch of replies that wait for it.

        One takes 0.1 ms and sixteen together hardly more. So batches grow with what is known: a
        cold model learns every reply at once, and of hundreds the last few change little. For a
        product of 64 rows BLAS starts its threads: 28 ms for 30 us of work where cores are busy.
        """
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        stacked = np.stack([reply.seen.stacked for reply in batch])
        errors = stacked @ self.stack.weights.T
        np.negative(errors, out=errors)
        for number, reply in enumerate(batch):
            beyond = min(MOST_BEYOND, max(-MOST_BEYOND, reply.log_tokens - reply.seen.base))
            errors[number] += beyond, abs(reply.log_tokens - reply.seen.middle)
            self.grams.learn(reply.call.grams, beyond)
        self.stack.learn(stacked, errors)
        self.kernel.add(
            [reply.call for reply in batch],
            [reply.seen.signature for reply in batch],
            groups=[checksum(reply.keys[-1]) for reply in batch],
            log_tokens=[reply.log_tokens for reply in batch],
            bases=[self.centres.value(reply.keys) for reply in batch],
        )


@dataclass(frozen=True, slots=True)
class _UnlearntReply:
    """A reply that waits for its batch."""

    call: CallFeatures
    seen: Forecast
    keys: tuple[str, ...]
    log_tokens: float


def group_keys(call: CallFeatures) -> tuple[str, ...]:
    """Return the groups of a call, from wide to narrow."""
    return ("", call.route, f"{call.model}\0{call.route}")
