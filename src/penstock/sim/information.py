"""What the scheduler is told about each request: the paper's information ladder, and noise.

The truth stays in `Job`; here it becomes a class, a prior and a deadline. Trap (a) of PAPER.md:
deadlines are set per bucket, so at the rungs `none` and `class` the loosest deadline of the class
(of all, at `none`) is told, or slack would give the size away.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from penstock.core.model import TokenEstimate, TrafficClass
from penstock.sim.calls import BUCKET_RANGE_TOKENS, Item, Knowledge

if TYPE_CHECKING:
    from penstock.predict.sampled_errors import SampledErrors

LEVELS = ("none", "class", "coarse", "oracle", "predicted", "recorded")
EVERYTHING = "everything"
"""The one class that there is when nothing is known."""


@dataclass(frozen=True, slots=True)
class ClassPlan:
    """A traffic class and the buckets whose requests belong to it."""

    name: str
    buckets: tuple[str, ...]
    weight: float = 1.0


class Informant:
    """Tells the scheduler what its information level allows.

    Args:
        level: one of LEVELS. `none`: one class, one constant prior for all; `class`: the class,
            one constant prior; `coarse`: the class and the bucket's p50 and p90; `oracle`: the
            exact count; `predicted`: errors that a real predictor made; `recorded`: what a
            decision log says was told at the time.
        noise: L; the prior is multiplied by a draw from U(1-L, 1+L).
        classes: which buckets make which class.
        deadline_s: by bucket.
        constant: the prior of the levels `none` and `class`.
        sampled: recorded predictions, for `predicted`.
        recorded: the classes of the decision log, for `recorded`.

    """

    def __init__(
        self,
        level: str,
        *,
        noise: float,
        classes: Sequence[ClassPlan],
        deadline_s: Mapping[str, float],
        constant: TokenEstimate,
        sampled: "SampledErrors | None" = None,
        recorded: Sequence[TrafficClass] = (),
    ) -> None:
        self._level = level
        self._noise = noise
        self._plans = tuple(classes)
        self._deadline_s = dict(deadline_s)
        self._constant = constant
        self._sampled = sampled
        self._recorded = tuple(recorded)
        self._class_of = {b: plan.name for plan in classes for b in plan.buckets}
        self._loosest_s = {
            plan.name: max(self._deadline_s[b] for b in plan.buckets) for plan in classes
        }
        self._coarse = {b: coarse_estimate(b) for b in self._class_of}
        self._settled: dict[str, Knowledge] = {}
        if not noise and level in ("none", "class", "coarse"):
            # Without noise these levels tell all requests of a bucket the same.
            example, chance = Item(0.0, 1), Random(0)
            self._settled = {b: self._knowledge(example, b, chance) for b in self._class_of}

    def classes(self) -> tuple[TrafficClass, ...]:
        """Return the scheduler's classes at this level."""
        if self._level == "none":
            loosest_s = max(self._deadline_s.values())
            return (TrafficClass(EVERYTHING, deadline_s=loosest_s, estimate=self._constant),)
        if self._level == "recorded":
            return self._recorded
        return tuple(
            TrafficClass(
                plan.name,
                weight=plan.weight,
                deadline_s=self._loosest_s[plan.name],
                estimate=self._constant,
            )
            for plan in self._plans
        )

    def inform(self, item: Item, bucket: str, chance: Random) -> Knowledge:
        """Return what is told of a request; draws twice, unless no draw could change anything.

        A call with a deadline of its own keeps it: it is the caller's, not the bucket's.
        """
        known = self._settled[bucket] if self._settled else self._knowledge(item, bucket, chance)
        if item.deadline_s is None:
            return known
        return Knowledge(known.traffic_class, known.estimate, item.deadline_s)

    def _knowledge(self, item: Item, bucket: str, chance: Random) -> Knowledge:
        factor = 1.0 + self._noise * (2.0 * chance.random() - 1.0)
        u = chance.random()
        if self._level == "none":
            loosest_s = max(self._deadline_s.values())
            return Knowledge(EVERYTHING, _scaled(self._constant, factor), loosest_s)
        if self._level == "recorded" and item.recorded is not None:
            given = item.recorded
            return Knowledge(given.traffic_class, _scaled(given.estimate, factor), given.deadline_s)
        name = self._class_of[bucket]
        if self._level == "class":
            return Knowledge(name, _scaled(self._constant, factor), self._loosest_s[name])
        return Knowledge(
            name,
            _scaled(self._prior(bucket, item.output_tokens, u), factor),
            self._deadline_s[bucket],
        )

    def _prior(self, bucket: str, output_tokens: int, u: float) -> TokenEstimate:
        if self._level == "coarse":
            return self._coarse[bucket]
        if self._level == "predicted" and self._sampled is not None:
            return self._sampled.estimate(output_tokens, u=u)
        exact = float(max(1, output_tokens))
        return TokenEstimate(exact, exact, "oracle")


def coarse_estimate(bucket: str) -> TokenEstimate:
    """Return the p50 and p90 of a loguniform draw from the bucket's range."""
    low, high = BUCKET_RANGE_TOKENS[bucket]
    ratio = high / low
    return TokenEstimate(low * ratio**0.5, low * ratio**0.9, "coarse")


def constant_estimate(mix: Mapping[str, float]) -> TokenEstimate:
    """Return the p50 and p90 over a whole mix of buckets: all that is known without magnitude."""
    return TokenEstimate(_mix_quantile(mix, 0.5), _mix_quantile(mix, 0.9), "constant")


def _mix_quantile(mix: Mapping[str, float], share: float) -> float:
    """Return the length that this share of the calls stays below, in tokens."""
    total = math.fsum(mix.values())
    left = share * total
    low, high = BUCKET_RANGE_TOKENS["short"]
    for bucket, part in ((b, mix.get(b, 0.0)) for b in BUCKET_RANGE_TOKENS):
        if part <= 0:
            continue
        low, high = BUCKET_RANGE_TOKENS[bucket]
        if left <= part:
            return float(low * (high / low) ** (left / part))
        left -= part
    return float(high)


def _scaled(estimate: TokenEstimate, factor: float) -> TokenEstimate:
    if factor == 1.0:
        return estimate
    p50 = max(1.0, estimate.p50_tokens * factor)
    return TokenEstimate(p50, max(p50, estimate.p90_tokens * factor), estimate.source)
