"""What the demo says on the terminal."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from penstock.experiments.demo.arm import TAIL_S
from penstock.experiments.demo.verdict import DemoVerdict, KeptShare
from penstock.experiments.demo.workload import LOAD, SLOTS, Shot
from penstock.metrics import RunMetrics

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
