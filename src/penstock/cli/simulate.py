"""`penstock simulate`: parse, wire, print."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from penstock.cli.out_file import OutFile, is_dash, keep_apart, standard_output, write_text
from penstock.cli.simulate_table import print_table

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
