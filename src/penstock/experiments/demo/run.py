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
from penstock.experiments.demo.children import FIFO, NO_PREDICTOR, provider, sidecar
from penstock.experiments.demo.replay import plan_of_replies, replies_of
from penstock.experiments.demo.verdict import DemoVerdict, KeptShare, judge
from penstock.experiments.demo.workload import plan
from penstock.experiments.job import Table
from penstock.metrics import RequestOutcome, RequestRecord, RunMetrics, measure

ARMS: dict[str, Table | None] = {"direct": None, "FIFO": FIFO, "penstock": NO_PREDICTOR}
"""Each arm with what its sidecar's configuration adds; None for no sidecar."""

ORACLE = "oracle"
"""penstock, told every reply's length by its callers: what no prediction can better."""


def run(
    *,
    seconds: float,
    seed: int,
    out: Path,
    console: Console,
    prompts: str | None = None,
    prior: str = "shipped",
) -> DemoVerdict | KeptShare:
    """Play every arm, print the table, write the report; return the verdict.

    Args:
        seconds: how long each load lasts.
        seed: of the load.
        out: the report's place.
        console: where to talk.
        prompts: a file of real prompts and lengths, `sample` for penstock's own, None for none.
        prior: what the predictor starts from, where there are prompts.

    Raises:
        DemoError: a child did not start.
        ConfigError: the file of prompts cannot be used.
        OSError: the report cannot be written, or the prompts not read.

    """
    ways = dict(ARMS)
    if prompts is None:
        shots = plan(seconds, seed=seed)
    else:
        shots = plan_of_replies(replies_of(prompts), seconds, seed=seed)
        ways["penstock"] = {"predictor": {"kind": "online", "prior": prior}}
        ways[ORACLE] = NO_PREDICTOR
    show.greet(console, shots, list(ways))
    arms: list[ArmResult] = []
    with show.bars(console) as progress:
        for name, config in ways.items():
            count = _ArmBar(progress, name, len(shots)).count
            with _way(config, seed) as url:
                arms.append(
                    asyncio.run(play(name, url, shots, progress=count, oracle=name == ORACLE))
                )
    results: dict[str, RunMetrics] = {arm.name: measure(arm.records) for arm in arms}
    verdict = (
        judge(results["direct"], results["penstock"], seconds=seconds)
        if prompts is None
        else KeptShare.of(results["penstock"], results[ORACLE], seconds=seconds)
    )
    console.print()
    console.print(show.table(results))
    show.conclude(console, verdict)
    report.write(out, arms, results, verdict)
    console.print(f"\nReport with plots: {out.resolve()}", soft_wrap=True)
    return verdict


@contextlib.contextmanager
def _way(config: Table | None, seed: int) -> Iterator[str]:
    """Run a fresh provider, and a sidecar if the arm has one; yields what clients call."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(provider(seed))
        if config is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-demo-"))
            url = stack.enter_context(sidecar(url, config, Path(folder)))
        yield url


class _ArmBar:
    """Moves one arm's bar."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task(name, total=total, in_time=0, refused=0)
        self._in_time = 0
        self._refused = 0

    def count(self, record: RequestRecord) -> None:
        self._in_time += record.in_time
        self._refused += record.outcome is RequestOutcome.SHED
        self._progress.update(self._task, advance=1, in_time=self._in_time, refused=self._refused)
