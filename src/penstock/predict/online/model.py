"""Experts that learn from every reply, which of them to believe, and a p90 above the median."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features.call import DENSE_NAMES, CallFeatures, checksum
from penstock.predict.features.text import PLACES
from penstock.predict.online.groups import GroupCentres, KeptGroups, Window
from penstock.predict.online.kernel_window import MOST_BEYOND, KernelWindow, signature
from penstock.predict.prior.model import LogTokens

_PRIOR_VARIANCE = 0.02
_FORGET = np.float32(0.9995)
_CLIP = np.float32(1.5)


class RecursiveRegression:
    """Bayesian linear regressions on the same features, updated batch by batch.

    Errors are clipped at `_CLIP`, so that one runaway reply does not turn the plane, and old
    replies fade by `_FORGET` each. All targets share one covariance, which is most of the cost.

    Source:
        Recursive least squares with exponential forgetting; Haykin, Adaptive Filter Theory.

    """

    def __init__(self, start: NDArray[np.float32]) -> None:
        """Start from `start` (one row a target), trusted as little as `_PRIOR_VARIANCE` says."""
        self.weights = start.astype(np.float32)
        self.covariance = np.eye(start.shape[1], dtype=np.float32) * np.float32(_PRIOR_VARIANCE)

    def values(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the value of each target."""
        return self.weights @ features

    def learn(self, features: NDArray[np.float32], errors: NDArray[np.float32]) -> None:
        """Take in by how much the values of replies, one a row, were too low."""
        pull = features @ self.covariance
        among = pull @ features.T
        among.flat[:: len(features) + 1] += _FORGET
        gain = np.linalg.solve(among, pull)
        self.weights += np.minimum(_CLIP, np.maximum(-_CLIP, errors)).T @ gain
        self.covariance -= pull.T @ gain
        # Forgetting would let directions that no reply has pointed at grow without bound.
        if float(self.covariance.diagonal().max()) < _PRIOR_VARIANCE:
            self.covariance /= _FORGET ** len(features)


class GramWeights:
    """A linear model over presence of n-grams, each text scaled to length one.

    Every weight has its own variance, so that a word never seen moves far and a common one
    little.

    Source:
        Adaptive regularisation of weights; Crammer, Kulesza & Dredze, NeurIPS 2009; for
        regression Vaits & Crammer, ALT 2011.

    """

    def __init__(self) -> None:
        """Start from zero."""
        self.weights = np.zeros(PLACES, np.float32)
        self.variances = np.ones(PLACES, np.float32)

    def value(self, grams: NDArray[np.uint16]) -> float:
        """Return the sum of the text's weights over the root of their number."""
        if grams.size == 0:
            return 0.0
        return float(np.add.reduce(self.weights.take(grams))) / math.sqrt(grams.size)

    def learn(self, grams: NDArray[np.uint16], wanted: float) -> None:
        """Take in the value that a text should have; it moves as if 1.5 off at most."""
        if grams.size == 0:
            return
        scale = 1.0 / math.sqrt(grams.size)
        places = grams.astype(np.intp)  # numpy would do so at each of the four uses
        weights, variances = self.weights.take(places), self.variances.take(places)
        error = wanted - float(np.add.reduce(weights)) / math.sqrt(grams.size)
        gain = 1.0 / (float(np.add.reduce(variances)) * scale * scale + 1.0)
        step = min(1.5, max(-1.5, error)) * scale * gain
        self.weights[places] = weights + variances * np.float32(step)
        self.variances[places] = variances - variances**2 * np.float32(scale * scale * gain)


_ERROR_MAX = 2.0  # log tokens: what is booked of one reply at most
_FADE = 0.98  # what an old loss keeps per reply of its group
_EVERYWHERE = 0.2  # how much of the losses over all groups a group takes as its own


class ExpertMix:
    """Weights experts by their discounted absolute errors, per group and over all groups.

    Source:
        Exponentially weighted forecasters; Cesa-Bianchi & Lugosi 2006, with discounting.

    """

    def __init__(self, start_losses: Sequence[float], *, eagerness: float) -> None:
        """Start with losses already on the books, which say whom to believe at first.

        Args:
            start_losses: one per expert, in summed log error.
            eagerness: how decisive a difference in summed losses is.

        """
        self._start = list(start_losses)
        self._eagerness = eagerness
        self.total = [0.0] * len(self._start)
        self.groups: KeptGroups[list[float]] = KeptGroups()

    def weights(self, group: str) -> list[float]:
        """Return the experts' weights, which add up to one."""
        own = self.groups.get(group) or self._start
        losses = [a + _EVERYWHERE * b for a, b in zip(own, self.total, strict=True)]
        least = min(losses)
        raw = [math.exp(-self._eagerness * (loss - least)) for loss in losses]
        total = sum(raw)
        return [weight / total for weight in raw]

    def learn(self, group: str, errors: Sequence[float]) -> None:
        """Book each expert's absolute error, at most `_ERROR_MAX` each."""
        own = self.groups.use(group, lambda: list(self._start))
        for losses in (own, self.total):
            for number, error in enumerate(errors):
                losses[number] = _FADE * losses[number] + min(_ERROR_MAX, error)

    def settle(self, seen: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """Book what each expert's mean error over a whole replay comes to in the long run.

        After a replay the losses are those of its last 50 replies or so, by chance; a model that
        is frozen there would go on with that.

        Args:
            seen: absolute errors per expert, of each reply of each group.

        """
        everyone = [errors for of_group in seen.values() for errors in of_group]
        if everyone:
            self.total = self._in_the_long_run(everyone)
        for key, errors in seen.items():
            if key in self.groups:
                self.groups.put(key, self._in_the_long_run(errors))

    def _in_the_long_run(self, replies: Sequence[Sequence[float]]) -> list[float]:
        """Return the sums that discounted errors stand at if they go on like these."""
        return [
            sum(min(_ERROR_MAX, error) for error in errors) / len(errors) / (1.0 - _FADE)
            for errors in zip(*replies, strict=True)
        ]


_START_ABOVE = 2.5  # in spreads, before any reply
_STEP = 0.02  # of the level, per reply: 10 misses in a row raise it from 0.90 to 0.98
_LEVEL_LIMITS = (0.7, 0.985)
_RECENT = 40  # replies that an alarm looks at
_ALARM_BELOW = 0.72  # 0.90 covered gives 29 or fewer of 40 by chance once in 1,400 times
_COVERAGE = 0.9
_RESIDUALS = 200  # remembered per group
_SHRINK = 10.0  # see `GroupCentres`


@dataclass(slots=True)
class _GroupResiduals:
    residuals: Window
    level: float = _COVERAGE
    recent: list[bool] = field(default_factory=list)


class ConformalP90:
    """Keeps 90 % of replies below p90, on each route and under drift.

    p90 is the median plus a quantile of the last residuals of the group, leaning on wider
    groups while it has few. The quantile's level moves up after a miss and down after a hit,
    so that a route whose replies got longer is covered again before its window has turned.
    When too many of the last 40 replies were above p90, the group's past is given up.

    Source:
        Split conformal prediction with a sliding window; adaptive level after Gibbs & Candes,
        "Adaptive conformal inference under distribution shift", NeurIPS 2021.

    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._groups: KeptGroups[_GroupResiduals] = KeptGroups()
        self.alarms = 0

    def above(self, keys: Sequence[str]) -> float:
        """Return how many spreads p90 is above the median, for groups from wide to narrow."""
        value = _START_ABOVE
        narrow = self._groups.get(keys[-1])
        level = narrow.level if narrow is not None else _COVERAGE
        for key in keys:
            group = self._groups.get(key)
            if group is not None and len(group.residuals):
                count = len(group.residuals)
                share = count / (count + _SHRINK)
                exact = min(1.0, level * (count + 1) / count)  # finite-sample correction
                value += share * (group.residuals.quantile(exact) - value)
        return max(0.0, value)

    def learn(self, keys: Sequence[str], residual: float, *, covered: bool) -> bool:
        """Take in a residual in spreads, and whether p90 held; True if that raised the alarm."""
        narrow = _GroupResiduals(Window(0))
        for key in keys:
            narrow = self._groups.use(key, self._empty)
            narrow.residuals.add(residual)
        level = narrow.level + _STEP * (_COVERAGE - float(covered))
        narrow.level = min(_LEVEL_LIMITS[1], max(_LEVEL_LIMITS[0], level))
        narrow.recent.append(covered)
        if len(narrow.recent) < _RECENT:
            return False
        alarm = sum(narrow.recent) <= _ALARM_BELOW * _RECENT
        del narrow.recent[: _RECENT if alarm else 1]
        if alarm:
            narrow.residuals.keep_last(_RECENT)
            self.alarms += 1
        return alarm

    def _empty(self) -> _GroupResiduals:
        return _GroupResiduals(Window(_RESIDUALS))

    def settle(self, seen: Mapping[str, Sequence[float]]) -> None:
        """Forget where chance left the levels and windows at the end of a replay.

        Levels go back to 0.90, and windows hold a fair sample of these residuals, in spreads.
        """
        for key, group in self._groups.items():
            group.level = _COVERAGE
            if key in seen:
                group.residuals.refill(seen[key])

    def export(self) -> dict[str, tuple[float, list[bool], list[float]]]:
        """Return level, recent hits and residuals of each group, longest unused first."""
        return {
            key: (group.level, list(group.recent), group.residuals.values())
            for key, group in self._groups.items()
        }

    def restore(self, state: dict[str, tuple[float, list[bool], list[float]]]) -> None:
        """Take over what `export` gave."""
        for key, (level, recent, residuals) in state.items():
            group = _GroupResiduals(Window(_RESIDUALS), level, list(recent))
            for residual in residuals:
                group.residuals.add(residual)
            self._groups.put(key, group)


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
