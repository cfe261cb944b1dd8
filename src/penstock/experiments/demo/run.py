"""The demo from its first word to its report."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from penstock.experiments.demo import report, show
from penstock.experiments.demo.arm import ArmResult, play
from penstock.experiments.demo.children import FIFO, provider, sidecar
from penstock.experiments.demo.verdict import Verdict, judge
from penstock.experiments.demo.workload import plan
from penstock.metrics import Metrics, Outcome, Record, measure

ARMS: dict[str, str | None] = {"direct": None, "FIFO": FIFO, "penstock": ""}
"""Each arm with what its sidecar's configuration adds; None for no sidecar."""


def run(*, seconds: float, seed: int, out: Path, console: Console) -> Verdict:
    """Play every arm, print the table, write the report; return the verdict.

    Raises:
        DemoError: a child did not start.
        OSError: the report cannot be written.

    """
    shots = plan(seconds, seed=seed)
    show.greet(console, shots)
    arms: list[ArmResult] = []
    with show.bars(console) as progress:
        for name, config in ARMS.items():
            counting = _Counting(progress, name, len(shots))
            with _way(config, seed) as url:
                arms.append(asyncio.run(play(name, url, shots, progress=counting.count)))
    results: dict[str, Metrics] = {arm.name: measure(arm.records) for arm in arms}
    verdict = judge(results["direct"], results["penstock"])
    console.print()
    console.print(show.table(results))
    show.conclude(console, verdict)
    report.write(out, arms, results, verdict)
    console.print(f"\nReport with plots: {out.resolve()}", soft_wrap=True)
    return verdict


@contextlib.contextmanager
def _way(config: str | None, seed: int) -> Iterator[str]:
    """Run a fresh provider, and a sidecar if the arm has one; yields what clients call."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(provider(seed))
        if config is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-demo-"))
            url = stack.enter_context(sidecar(url, config, Path(folder)))
        yield url


class _Counting:
    """Moves one arm's bar."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task(name, total=total, in_time=0, refused=0)
        self._in_time = 0
        self._refused = 0

    def count(self, record: Record) -> None:
        self._in_time += record.in_time
        self._refused += record.outcome is Outcome.SHED
        self._progress.update(self._task, advance=1, in_time=self._in_time, refused=self._refused)
