"""`penstock simulate`: parse, wire, print."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.options import OutFile, is_dash, keep_apart, standard_output, write_text
from penstock.cli.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from penstock.sim.simulate import Result


_NAME_WIDTH = 6
"""What a policy's name keeps where there is little room: it is folded, figures never are."""

_SECONDS = {
    "short\nP95": "short_p95_s",
    "long\nP90": "long_p90_s",
    "all\nP95": "p95_s",
    "make-\nspan": "makespan_s",
}
_PER_CENT = {"com-\npleted": "completion_rate", "in\ntime": "deadline_satisfaction"}


def print_table(results: Sequence["Result"]) -> None:
    """Print the means over the seeds.

    A terminal's width is kept as long as the figures have room in it; a pipe or a file takes as
    much as the table needs, because nobody knows how wide its reader is.
    """
    from rich.console import Console
    from rich.measure import Measurement

    by_policy = _by_policy(results)
    table = _table(by_policy, seeds=len({r.seed for r in results}))
    console = Console()
    widest = console.options.update(width=100_000)
    needed = Measurement.get(console, widest, table).maximum
    if console.is_terminal:
        needed -= max(0, _widest_name(console, by_policy) - _NAME_WIDTH)
        needed = max(needed, console.width)
    Console(width=needed).print(table)


def _by_policy(results: Sequence["Result"]) -> dict[str, list["Result"]]:
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.policy, []).append(result)
    return grouped


def _widest_name(console: "Console", names: Iterable[str]) -> int:
    from rich.text import Text

    return max(console.measure(Text(printable(name))).maximum for name in names)


def _table(by_policy: dict[str, list["Result"]], *, seeds: int) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    title = f"Means over {seeds} seed{'s' if seeds > 1 else ''}; latencies in seconds"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    table.add_column("policy", overflow="fold")
    columns = _columns([[r.row() for r in group] for group in by_policy.values()])
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, *cells in zip(by_policy, *columns.values(), strict=True):
        table.add_row(Text(printable(name)), *cells)
    return table


def _columns(groups: list[list[dict[str, Any]]]) -> dict[str, list[str]]:
    """Return each column's cells by its heading; a column's points stand under each other."""

    def means(key: str) -> list[float | None]:
        return [_mean([row[key] for row in rows]) for rows in groups]

    return {
        **{heading: _seconds(means(key)) for heading, key in _SECONDS.items()},
        **{heading: _cells(means(key), 1, 100, "%") for heading, key in _PER_CENT.items()},
        "useful\nper s": _cells(means("useful_goodput_per_s"), 2),
        "defer-\nrals": _cells(means("deferrals"), 0),
        "shed\nS/M/L/XL": [_shed([row["shed"] for row in rows]) for rows in groups],
    }


def _mean(values: list[float | None]) -> float | None:
    """Return the mean of what there is; a run in which nothing completed has no latencies."""
    given = [value for value in values if value is not None]
    return fmean(given) if given else None


def _seconds(means: list[float | None]) -> list[str]:
    """Return times with as many decimals as the shortest of them needs for three digits."""
    shortest = min((mean for mean in means if mean is not None), default=0.0)
    return _cells(means, 2 if shortest < 10 else 1 if shortest < 100 else 0)


def _cells(means: list[float | None], decimals: int, times: float = 1, unit: str = "") -> list[str]:
    return ["-" if mean is None else f"{times * mean:.{decimals}f}{unit}" for mean in means]


def _shed(counts: list[Mapping[str, int]]) -> str:
    """Return the mean counts by bucket, as `0/0.7/12`."""
    means = (fmean(count[bucket] for count in counts) for bucket in counts[0])
    return "/".join(f"{mean:.1f}".removesuffix(".0") for mean in means)


_WORTH_PROCESSES = 20_000
"""Requests over all runs; below, starting processes takes longer than it saves."""


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option(
    "--json",
    "json_file",
    type=OutFile(allow_dash=True),
    help="Write the results to this file as JSON; - for standard output, without the table.",
)
@click.option(
    "--decision-log",
    type=OutFile(),
    help="Write the decision log of the one run to this file: SCENARIO must have one policy and "
    "one seed.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Use so many processes; the results are the same.  [default: as many as pay]",
)
def command(
    scenario: Path, json_file: Path | None, decision_log: Path | None, processes: int | None
) -> None:
    """Run SCENARIO, a TOML file, on a virtual clock and compare its policies.

    The same file gives the same results, to the byte. Its format: docs/reference/scenario.md.
    """
    from penstock.sim.scenario import load_scenario
    from penstock.sim.simulate import simulate, simulate_logged

    keep_apart({"SCENARIO": scenario, "--json": json_file, "--decision-log": decision_log})
    with _ends_at_once():
        plan = load_scenario(scenario)
        runs = len(plan.seeds) * len(plan.policies)
        if processes is None:
            big = runs * (plan.workload.calls or _WORTH_PROCESSES) > _WORTH_PROCESSES
            processes = (os.cpu_count() or 1) if big else 1
        if decision_log is not None and runs > 1:
            raise click.UsageError(
                f"--decision-log: SCENARIO has {runs} runs, and a log holds one: it must have one "
                "policy and one seed"
            )
        with _progress(runs) as progress:
            if decision_log is not None:
                results = [simulate_logged(plan, decision_log)]
            else:
                results = simulate(plan, processes=processes, progress=progress)
    text = json.dumps({"results": [r.row() for r in results]}, indent=2, allow_nan=False) + "\n"
    if not is_dash(json_file):
        with standard_output():
            print_table(results)
    if json_file is not None:
        write_text(json_file, text)
        if not is_dash(json_file):
            click.echo(f"written: {json_file}")


@contextmanager
def _ends_at_once() -> Iterator[None]:
    """End at Ctrl-C without waiting for the runs under way, which may take minutes.

    Raises:
        SystemExit: Ctrl-C was pressed, or another program ended this one.
        click.ClickException: a worker process died.

    """
    parent, stopped = os.getpid(), False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if os.getpid() != parent:  # a forked worker: it would say so, and take its next run
            os._exit(130)
        stopped = True
        workers = multiprocessing.active_children()
        for worker in workers:
            worker.kill()
        # The pool tells of dead workers itself; raised while it forks, this would get lost.
        if not workers:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except (KeyboardInterrupt, BrokenProcessPool) as end:
        if isinstance(end, BrokenProcessPool) and not stopped:
            raise click.ClickException(
                "a process ended before its run was done: did it run out of memory? "
                "--processes 1 needs the least."
            ) from end
        click.echo(
            "\nStopped: nothing was written, because the runs that are done are not kept. "
            "Fewer requests or seeds end sooner.",
            err=True,
        )
        raise SystemExit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(runs: int) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal how many runs are done, and that time passes within one."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("simulating", total=runs)
        yield lambda done, _of: bar.update(task, completed=done)
