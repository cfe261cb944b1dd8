"""The posterior over how many requests the provider serves at once, and by which rule."""

import math
from dataclasses import dataclass, field
from itertools import accumulate

from penstock.policies.capacity.window.evidence import LOGS, PLACES, Series, Sums
from penstock.policies.capacity.window.flights import Record

MEMORY = 256.0
"""Replies after which evidence has faded to 1/e; with many places two generations of flights."""
UNSURE = 0.1
NOISE_WEIGHT = 3.0
"""So far from the usual, a mean tells nothing; and so much is the noise before any reply, as if so
many had shown it."""
MOST_SLOWING, SLOWING_WEIGHT = 0.6, 0.2
"""An engine that batches slows by less than this power of the number served; beyond it is full."""
LINE_REPLIES = 4.0
"""Of so many replies one falls into a given bin of the line. The usual reply lies above the line by
as many times the noise as the fastest of so many lies below the usual one, and by `UNSURE`."""
ENOUGH, LEAST_REPLIES = 12.0, 24.0
"""Evidence is kept until one capacity leads all that differ by a third by so much (a logarithm of
odds), and never less than so many replies: where little is chance, a change is soon seen."""
FLOOR_S, LEAST_SHIFT = 0.02, 0.02
HEAVY = 1e9


@dataclass(frozen=True, slots=True)
class Belief:
    """What the estimate says now.

    Attributes:
        places: the median of the capacity; infinite if it is beyond what was ever in flight.
        queue_probability: that the provider queues, and does not share.
        noise: standard deviation of log(latency / service) under the best hypothesis.
        slowing: by which power of the number in flight each becomes slower below the capacity.
        replies: how many replies this stands on, as far as they have not faded.

    """

    places: float
    queue_probability: float
    noise: float
    slowing: float
    replies: float


@dataclass(slots=True)
class Estimate:
    """Weighs "a queue of c places" against "c served at once, more share" for every capacity c.

    Each hypothesis is scored by how little scatter it leaves in the replies, with slowing and
    noise at their best for it, and by how usual the mean is that it leaves: a marginal likelihood.

    Source:
        Ours. Normal-inverse-gamma priors: Gelman et al., Bayesian Data Analysis, chapter 3.
        Number in service as rate times service time: Little, Operations Research 9(3), 1961.

    """

    whole: Series = field(default_factory=lambda: Series(queues=True))
    first: Series = field(default_factory=lambda: Series(queues=True))
    rest: Series = field(default_factory=lambda: Series(queues=False))
    replies: int = 0
    _weight: float = 1.0

    def learn(self, series: Series, record: Record) -> None:
        """Take in one observation of a kind: `whole`, `first` or `rest`."""
        kinds = (self.whole, self.first, self.rest)
        for each in kinds:
            each.reach(record.in_flight)
        self._weight *= 1.0 + 1.0 / MEMORY
        if self._weight > HEAVY:
            for each in kinds:
                each.scale(1.0 / self._weight)
            self._weight = 1.0
        series.add(record, FLOOR_S if series is self.first else 0.0, self._weight)
        self.replies += 1

    def compare_with(self, faster: float) -> None:
        """Judge what was learnt so far by a line whose logarithm has fallen by `faster`."""
        if abs(faster) > LEAST_SHIFT:
            self.whole.faster += faster
            self.rest.faster += faster

    def belief(self) -> Belief:
        """Return the median of the posterior and what goes with it."""
        kinds = [each for each in (self.whole, self.first, self.rest) if each.weight]
        counts = [kind.weight / self._weight for kind in kinds]
        replies = sum(counts)
        fits = [
            [_fit(each, kind.faster, count) for each in kind.sums()]
            for kind, count in zip(kinds, counts, strict=True)
        ]
        size = len(fits[0]) // 2
        scores = 2 * [_prior(i, last=i == size - 1) for i in range(size)]
        # Of one or two replies of a kind nobody knows how they scatter: the noise is of all kinds.
        noise = [
            sum(count * fit[1] for count, fit in zip(counts, each, strict=True)) / replies
            for each in zip(*fits, strict=True)
        ]
        for kind, count, own in zip(kinds, counts, fits, strict=True):
            usual = math.sqrt(math.log(1.0 + count / LINE_REPLIES))
            known = count + NOISE_WEIGHT
            near = [each / self._weight for each in kind.unwaited()] + size * [count]
            for i, (mean, variance, _) in enumerate(own):
                away = mean - UNSURE - usual * math.sqrt(noise[i])
                unsure = UNSURE * UNSURE + noise[i] / near[i]
                scores[i] -= 0.5 * (known * math.log(variance) + away * away / unsure)
        best = max(scores)
        here = scores.index(best) % size
        lead = best - max(
            (s for i, s in enumerate(scores) if not 0.75 < PLACES[i % size] / PLACES[here] < 1.34),
            default=best,
        )
        if lead > ENOUGH:
            self._weight *= max(1.0, min(lead / ENOUGH, replies / LEAST_REPLIES))
            replies = sum(each.weight for each in kinds) / self._weight
        mass = [math.exp(score - best) for score in scores]
        total = sum(mass)
        below = accumulate(mass[i] + mass[size + i] for i in range(size - 1))
        median = next((float(PLACES[i]) for i, m in enumerate(below) if m >= 0.5 * total), math.inf)
        _, variance, slowing = fits[counts.index(max(counts))][scores.index(best)]
        return Belief(median, sum(mass[:size]) / total, math.sqrt(variance), slowing, replies)


def _prior(i: int, *, last: bool) -> float:
    """Return the logarithm of a capacity's prior mass; the last stands for all above as well.

    Pareto's, as no scale is known: among capacities of at least c, half are above 2 c.
    """
    low = LOGS[i - 1] if i else -LOGS[1]
    if last:
        return -0.5 * (low + LOGS[i])
    return math.log(0.5 * (LOGS[i + 1] - low)) - LOGS[i]


def _fit(sums: Sums, faster: float, replies: float) -> tuple[float, float, float]:
    """Return the mean and the variance that a hypothesis leaves, and the best slowing for it."""
    r, rr, ru, u, uu = sums
    rr, ru, uu = rr - r * r, ru - r * u, uu - u * u
    slowing = max(0.0, min(MOST_SLOWING, ru / (uu + SLOWING_WEIGHT / replies)))
    left = max(0.0, rr - slowing * (2.0 * ru - slowing * uu)) * replies
    variance = (left + NOISE_WEIGHT * UNSURE * UNSURE) / (replies + NOISE_WEIGHT)
    return r + faster, variance, slowing
