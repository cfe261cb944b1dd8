"""`penstock simulate`: parse, wire, print."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.out_file import OutFile, keep_apart, write_text

if TYPE_CHECKING:
    from rich.table import Table

    from penstock.sim.simulate import Result

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
    "--processes",
    type=click.IntRange(min=1),
    help="Use so many processes; the results are the same.  [default: as many as pay]",
)
def command(scenario: Path, json_file: Path | None, processes: int | None) -> None:
    """Run SCENARIO, a TOML file, on a virtual clock and compare its policies.

    The same file gives the same results, to the byte. Its format: docs/reference/scenario.md.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from penstock.sim.scenario import load_scenario
    from penstock.sim.simulate import simulate

    keep_apart({"SCENARIO": scenario, "--json": json_file})
    plan = load_scenario(scenario)
    runs = len(plan.seeds) * len(plan.policies)
    if processes is None:
        big = runs * (plan.workload.requests or _WORTH_PROCESSES) > _WORTH_PROCESSES
        processes = (os.cpu_count() or 1) if big else 1
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("simulating", total=runs)
        results = simulate(
            plan,
            processes=processes,
            progress=lambda done, _of: bar.update(task, completed=done),
        )
    text = json.dumps({"results": [r.row() for r in results]}, indent=2, allow_nan=False) + "\n"
    if json_file is not None and str(json_file) == "-":
        click.echo(text, nl=False)
        return
    Console().print(table_of(results))
    if json_file is not None:
        write_text(json_file, text)
        click.echo(f"written: {json_file}")


def table_of(results: Sequence["Result"]) -> "Table":
    """Return the means over the seeds, a row per policy."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    seeds = len({r.seed for r in results})
    title = f"Means over {seeds} seeds; latencies in seconds"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    table.add_column("policy", no_wrap=True)
    for heading in (
        "short\nP95",
        "long\nP90",
        "all\nP95",
        "make-\nspan",
        "com-\npleted",
        "in\ntime",
        "useful\nper s",
        "defer-\nrals",
        "shed\nS/M/L/XL",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for policy in dict.fromkeys(r.policy for r in results):
        table.add_row(policy, *_cells([r for r in results if r.policy == policy]))
    return table


def _cells(results: Sequence["Result"]) -> list[str]:
    rows = [r.row() for r in results]

    def mean(key: str) -> float | None:
        values = [row[key] for row in rows if row[key] is not None]
        return sum(values) / len(values) if values else None

    def seconds(key: str) -> str:
        value = mean(key)
        return "-" if value is None else f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"

    def percent(key: str) -> str:
        return f"{100 * (mean(key) or 0.0):.1f}%"

    shed = [sum(r.metrics.shed[b] for r in results) for b in results[0].metrics.shed]
    return [
        seconds("short_p95_s"),
        seconds("long_p90_s"),
        seconds("p95_s"),
        seconds("makespan_s"),
        percent("completion_rate"),
        percent("deadline_satisfaction"),
        f"{mean('useful_goodput_per_s') or 0.0:.2f}",
        f"{mean('deferrals') or 0.0:.0f}",
        "/".join(f"{count / len(results):g}" for count in shed),
    ]
