"""What the demo found, and how it says so on the terminal."""

from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from penstock.experiments.demo.arm import LOAD, SLOTS, TAIL_S, Shot
from penstock.metrics import RunMetrics

PROMISED_FROM_S = 9.0
"""A shorter load is over before a queue has grown: in 2 s direct calls meet up to 95 % themselves.

Simulated at loads of 2 to 60 s (ten seeds): from 9 s on penstock misses 0.15 to 0.35 of what direct
calls miss, and its short P95 is at most 0.21 of theirs; in 2 s up to all of it, and 0.4. How many
times as many deadlines are met says how long the load lasted: 1.1 times in 2 s, 17 in 60 s.
"""
MOST_MISSED_SHARE = 0.5
MOST_SHORT_RATIO = 0.25
LEAST_ORACLE_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class DemoVerdict:
    """The two ratios of one run.

    Attributes:
        missed_share: deadlines that penstock missed over those that direct calls missed.
        short_ratio: penstock's short P95 over that of direct calls.
        promised: whether the load lasted long enough for a promise.

    """

    missed_share: float
    short_ratio: float
    promised: bool = True

    @property
    def kept(self) -> bool:
        """Whether both promises hold; true where none was made."""
        held = self.missed_share <= MOST_MISSED_SHARE and self.short_ratio < MOST_SHORT_RATIO
        return held or not self.promised

    def lines(self) -> list[str]:
        """Return the figures, each with its promise."""
        return [
            (
                f"Deadlines missed: {self.missed_share:.2f} of those that direct calls missed"
                + _promise(f"at most {MOST_MISSED_SHARE}", self.promised)
            ),
            (
                f"P95 of short requests: {self.short_ratio:.2f} of that of direct calls"
                + _promise(f"below {MOST_SHORT_RATIO}", self.promised)
            ),
        ]


@dataclass(frozen=True, slots=True)
class KeptShare:
    """How much of what perfect knowledge would give is kept with predicted lengths.

    Attributes:
        satisfaction: penstock's deadline satisfaction. oracle: that of the arm that was told.
        promised: whether the load lasted long enough for a promise.

    """

    satisfaction: float
    oracle: float
    promised: bool = True

    @classmethod
    def of(
        cls, penstock: RunMetrics, oracle: RunMetrics, *, seconds: float = PROMISED_FROM_S
    ) -> "KeptShare":
        """Compare two arms of one run, of a load that lasted so long."""
        return cls(
            penstock.deadline_satisfaction,
            oracle.deadline_satisfaction,
            seconds >= PROMISED_FROM_S,
        )

    @property
    def share(self) -> float:
        """The one as a share of the other."""
        return self.satisfaction / max(self.oracle, 1e-9)

    @property
    def kept(self) -> bool:
        """Whether the promise holds; true where none was made."""
        return self.share >= LEAST_ORACLE_SHARE or not self.promised

    def lines(self) -> list[str]:
        """Return the promise with its figure."""
        return [
            (
                f"Deadlines met with predicted lengths: {self.share:.1%} of those met with "
                f"lengths known beforehand"
                + _promise(f"at least {LEAST_ORACLE_SHARE:.0%}", self.promised)
            )
        ]


def judge(
    direct: RunMetrics, penstock: RunMetrics, *, seconds: float = PROMISED_FROM_S
) -> DemoVerdict:
    """Compare two arms of one run, of a load that lasted so long."""
    missed = (1.0 - penstock.deadline_satisfaction) / max(1.0 - direct.deadline_satisfaction, 1e-9)
    short = float("inf")
    if penstock.short_p95_s is not None and direct.short_p95_s:
        short = penstock.short_p95_s / direct.short_p95_s
    return DemoVerdict(missed, short, seconds >= PROMISED_FROM_S)


def _promise(words: str, promised: bool) -> str:
    return f" (promised: {words})" if promised else f" (from {PROMISED_FROM_S:g} s on: {words})"


UNANSWERED = (
    f"Unanswered: broken, or no whole reply {TAIL_S:g} s after the last request, when the run ends."
)
_WORDS = {
    "direct": "called directly",
    "FIFO": "through a first-come-first-served sidecar",
    "penstock": "through penstock",
    "oracle": "through penstock when it is told every length beforehand",
}


def greet(console: Console, shots: list[Shot], arms: list[str]) -> None:
    """Print what is about to happen."""
    ways = [_WORDS[name] for name in arms]
    console.print(
        f"A provider with {SLOTS} hidden slots gets {len(shots)} chat completions at {LOAD:g} "
        f"times what it can do, {len(ways)} times over: {', '.join(ways[:-1])}, and {ways[-1]}.\n"
    )


def bars(console: Console) -> Progress:
    """Return the progress display."""
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("in time {task.fields[in_time]:>4}   refused {task.fields[refused]:>3}"),
        TimeElapsedColumn(),
        console=console,
    )


def table(results: dict[str, RunMetrics]) -> Table:
    """Return the paper's metrics side by side."""
    sheet = Table(title=f"The same load, {len(results)} ways", title_justify="left")
    if any(_unanswered(metrics) for metrics in results.values()):
        sheet.caption, sheet.caption_justify = UNANSWERED, "left"
    sheet.add_column("")
    for name in results:
        sheet.add_column(name, justify="right")
    for label, cells in rows(results):
        sheet.add_row(label, *cells)
    return sheet


def rows(results: dict[str, RunMetrics]) -> list[tuple[str, list[str]]]:
    """Return every metric with its figure for each arm."""
    every = list(results.values())
    return [
        ("short P95", [_span(m.short_p95_s) for m in every]),
        ("global P95", [_span(m.p95_s) for m in every]),
        ("makespan", [_span(m.makespan_s) for m in every]),
        ("completion rate", [f"{m.completion_rate:.1%}" for m in every]),
        ("deadline satisfaction", [f"{m.deadline_satisfaction:.1%}" for m in every]),
        ("useful goodput", [f"{m.useful_goodput_per_s:.1f}/s" for m in every]),
        ("refused", [_shed(m) for m in every]),
        ("unanswered", [str(_unanswered(m) or "none") for m in every]),
    ]


def conclude(console: Console, verdict: DemoVerdict | KeptShare) -> None:
    """Print the promises and their figures."""
    for line in verdict.lines():
        console.print(line)


def _unanswered(metrics: RunMetrics) -> int:
    completed = round(metrics.completion_rate * metrics.submitted)
    return metrics.submitted - completed - sum(metrics.shed.values())


def _span(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _shed(metrics: RunMetrics) -> str:
    shed = {bucket: count for bucket, count in metrics.shed.items() if count}
    return ", ".join(f"{count} {bucket}" for bucket, count in shed.items()) or "none"
