"""The paper's metrics, defined once for simulation and live traffic.

Source:
    The names are the paper's (arXiv 2604.06970); the definitions are in PAPER.md, version 1.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from penstock.core.model import BUCKET_UPPER_TOKENS

BUCKETS = tuple(name for name, _ in BUCKET_UPPER_TOKENS)


class RequestOutcome(Enum):
    """How a request ended."""

    COMPLETED = "completed"
    SHED = "shed"
    """Refused by the scheduler, for whatever reason."""
    FAILED = "failed"
    """Broken by the provider, and not tried again."""
    CANCELLED = "cancelled"


@dataclass(slots=True)
class RequestRecord:
    """One request, from the caller's side.

    Attributes:
        bucket: by its true output tokens (by its predicted ones if it never had a reply).
        arrived_at: driver seconds at which the caller submitted it.
        deadline: driver seconds; the true one, whatever the scheduler was told.
        ended_at: driver seconds of the last token, or of the refusal.
        deferrals: how often the ladder sent it back.

    """

    bucket: str
    arrived_at: float
    deadline: float
    ended_at: float
    outcome: RequestOutcome
    deferrals: int = 0

    @property
    def latency_s(self) -> float:
        """Seconds from submission by the caller to the last token."""
        return self.ended_at - self.arrived_at

    @property
    def in_time(self) -> bool:
        """True if it completed by its deadline."""
        return self.outcome is RequestOutcome.COMPLETED and self.ended_at <= self.deadline


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """What a run is judged by. A figure is None where nothing completed that it speaks of.

    Attributes:
        short_p95_s, short_p90_s: latency percentiles of completed short requests.
        long_p90_s: of completed long and xlong requests.
        p95_s: of all completed requests.
        makespan_s: from the first arrival to the last completion.
        completion_rate: completed / submitted.
        deadline_satisfaction: completed in time / submitted.
        useful_goodput_per_s: completed in time / makespan.
        deferrals: times that the ladder sent a request back.
        shed: refused requests by bucket.
        submitted: how many there were.

    """

    short_p95_s: float | None
    short_p90_s: float | None
    long_p90_s: float | None
    p95_s: float | None
    makespan_s: float | None
    completion_rate: float
    deadline_satisfaction: float
    useful_goodput_per_s: float
    deferrals: int
    shed: dict[str, int] = field(default_factory=dict)
    submitted: int = 0


def nearest_rank(ordered: Sequence[float], percent: float) -> float | None:
    """Return the smallest value that at least `percent` % of the values do not exceed.

    None if there are no values.

    Raises:
        ValueError: the percentage is outside (0, 100].

    Source:
        The nearest-rank percentile, as PAPER.md asks; no interpolation.

    """
    if not 0 < percent <= 100:
        raise ValueError(f"percent={percent!r}: must be above 0 and at most 100")
    if not ordered:
        return None
    # Decimal percentages are not exact in binary: 0.95 * 20 must give rank 19, not 20.
    rank = math.ceil(round(percent * len(ordered) / 100, 9))
    return ordered[rank - 1]


def measure(records: Iterable[RequestRecord]) -> RunMetrics:
    """Return the metrics over all requests of a run.

    Raises:
        ValueError: there is no request at all.

    """
    every = list(records)
    if not every:
        raise ValueError("no requests to measure: was the run cut before the first arrival?")
    completed, refused = RequestOutcome.COMPLETED, RequestOutcome.SHED
    done = [r for r in every if r.outcome is completed]
    shed = [r.bucket for r in every if r.outcome is refused]
    in_time = sum(1 for r in done if r.ended_at <= r.deadline)
    makespan_s = None
    if done:
        makespan_s = max(r.ended_at for r in done) - min(r.arrived_at for r in every)
    short = _latencies(done, ("short",))
    long = _latencies(done, ("long", "xlong"))
    return RunMetrics(
        short_p95_s=nearest_rank(short, 95),
        short_p90_s=nearest_rank(short, 90),
        long_p90_s=nearest_rank(long, 90),
        p95_s=nearest_rank(_latencies(done, BUCKETS), 95),
        makespan_s=makespan_s,
        completion_rate=len(done) / len(every),
        deadline_satisfaction=in_time / len(every),
        useful_goodput_per_s=in_time / makespan_s if makespan_s else 0.0,
        deferrals=sum(r.deferrals for r in every),
        shed={bucket: shed.count(bucket) for bucket in BUCKETS},
        submitted=len(every),
    )


def _latencies(records: Iterable[RequestRecord], buckets: Collection[str]) -> list[float]:
    return sorted([r.ended_at - r.arrived_at for r in records if r.bucket in buckets])
