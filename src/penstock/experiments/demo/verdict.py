"""What the demo promises, and whether this run kept it."""

from dataclasses import dataclass

from penstock.metrics import RunMetrics

LEAST_DEADLINE_RATIO = 1.8
MOST_SHORT_RATIO = 0.25
LEAST_ORACLE_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class DemoVerdict:
    """The two ratios of one run.

    Attributes:
        deadline_ratio: penstock's deadline satisfaction over that of direct calls.
        short_ratio: penstock's short P95 over that of direct calls.

    """

    deadline_ratio: float
    short_ratio: float

    @property
    def kept(self) -> bool:
        """Whether both promises hold."""
        return self.deadline_ratio >= LEAST_DEADLINE_RATIO and self.short_ratio < MOST_SHORT_RATIO

    def lines(self) -> list[str]:
        """Return the promises, each with its figure."""
        return [
            (
                f"deadlines met: {self.deadline_ratio:.2f} times as many as with direct calls "
                f"(promised: at least {LEAST_DEADLINE_RATIO})"
            ),
            (
                f"P95 of short requests: {self.short_ratio:.2f} of that of direct calls "
                f"(promised: below {MOST_SHORT_RATIO})"
            ),
        ]


@dataclass(frozen=True, slots=True)
class KeptShare:
    """How much of what perfect knowledge would give is kept with predicted lengths.

    Attributes:
        satisfaction: penstock's deadline satisfaction. oracle: that of the arm that was told.

    """

    satisfaction: float
    oracle: float

    @classmethod
    def of(cls, penstock: RunMetrics, oracle: RunMetrics) -> "KeptShare":
        """Compare two arms of one run."""
        return cls(
            penstock.deadline_satisfaction,
            oracle.deadline_satisfaction,
        )

    @property
    def share(self) -> float:
        """The one as a share of the other."""
        return self.satisfaction / max(self.oracle, 1e-9)

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.share >= LEAST_ORACLE_SHARE

    def lines(self) -> list[str]:
        """Return the promise with its figure."""
        return [
            (
                f"deadlines met with predicted lengths: {self.share:.1%} of those met with "
                f"lengths known beforehand (promised: at least {LEAST_ORACLE_SHARE:.0%})"
            )
        ]


def judge(direct: RunMetrics, penstock: RunMetrics) -> DemoVerdict:
    """Compare two arms of one run."""
    deadline = penstock.deadline_satisfaction / max(direct.deadline_satisfaction, 1e-9)
    if penstock.short_p95_s is None or not direct.short_p95_s:
        return DemoVerdict(deadline, float("inf"))
    return DemoVerdict(deadline, penstock.short_p95_s / direct.short_p95_s)
