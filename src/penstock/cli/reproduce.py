"""`penstock reproduce`: parse, wire, print."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.options import (
    OutFile,
    is_dash,
    refusal,
    sigterm_as_ctrl_c,
    standard_output,
    write_text,
)
from penstock.private_file import try_file

if TYPE_CHECKING:
    from penstock.experiments.bench import Progress
    from penstock.experiments.pool import Workers
    from penstock.experiments.study import Study


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME ...]")
@click.option(
    "--seeds",
    type=click.IntRange(1, 100),
    help="Run every cell with this many seeds.  [default: 5, as the paper]",
)
@click.option(
    "--worlds",
    type=click.IntRange(0, 10_000),
    default=0,
    show_default=True,
    help="Try every claim in this many perturbed worlds too.",
)
@click.option(
    "--json",
    "json_file",
    type=OutFile(allow_dash=True),
    help="Write claims and tables to this file; - for standard output, the rest to standard error.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reproduction"),
    show_default=True,
    help="Keep the reports and all finished runs in this folder.",
)
@click.option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    help="Run on the Ray cluster at this address; `local` starts one here.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    help="Use this many processes here.  [default: one for each core]",
)
def command(
    names: tuple[str, ...],
    seeds: int | None,
    worlds: int,
    json_file: Path | None,
    out: Path,
    ray_address: str | None,
    jobs: int | None,
) -> None:
    """Run the paper's experiments and say which of its claims hold.

    NAME is an experiment: policies, information, noise, overload, allocation, ablation,
    sensitivity, live or regret; without any, all are run. The report is written to
    OUT/report.html and OUT/report.md. Finished runs are kept, so a run that was stopped goes on
    where it was, and a changed version of penstock runs only what it could have changed.
    """
    from penstock.experiments.bench import Bench, Store
    from penstock.experiments.paper import paper_directory, read_paper
    from penstock.experiments.report import write_report
    from penstock.experiments.study import Wish, chosen, make_study

    chosen(read_paper(paper_directory()), names)  # a wrong name leaves no folder behind
    for report in (out / "report.html", out / "report.md"):
        try:
            try_file(report)
        except OSError as error:
            raise click.BadParameter(refusal(report, error), param_hint="--out") from error
    workers = _workers(ray_address, jobs)  # before the store: without Ray, no folder is left behind
    store = Store(out)
    try:
        with sigterm_as_ctrl_c(), _progress() as progress:
            bench = Bench(store, workers, progress)
            study = make_study(paper_directory(), Wish(names, seeds, worlds), bench)
            written = write_report(study, out)
    except KeyboardInterrupt:
        click.echo(
            f"\nStopped. {len(store)} finished runs are kept in {store.path}; "
            "the same command goes on from there.",
            err=True,
        )
        raise SystemExit(130) from None
    finally:
        workers.close()
        store.close()
    files = list(written.files)
    if json_file is not None:
        write_text(json_file, written.json)
        if not is_dash(json_file):
            files.append(json_file)
    with standard_output():
        aside = is_dash(json_file)
        _print_claims(study, aside=aside)
        click.echo(f"{bench.made} runs made, the others were kept from before.", err=aside)
        for path in files:
            click.echo(f"Written: {path}", err=aside)


def _workers(ray_address: str | None, jobs: int | None) -> "Workers":
    import os

    if ray_address is not None:
        from penstock.experiments.pool import RayCluster

        return RayCluster(ray_address)
    from penstock.experiments.pool import Here, Processes

    count = jobs or os.cpu_count() or 1
    return Here() if count == 1 else Processes(count)


@contextmanager
def _progress() -> Iterator["Progress"]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks = {}

        def progress(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done, total=total)

        yield progress


def _print_claims(study: "Study", *, aside: bool) -> None:
    """Print what was found, to standard error if `aside`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "Ours", "Holds", "Worlds")
    for verdict in study.verdicts:
        share = verdict.worlds_share
        table.add_row(
            verdict.claim,
            Text(verdict.finding.reading),
            verdict.word,
            "-" if share is None else f"{100 * share:.0f} %",
        )
    if study.verdicts:
        Console(stderr=aside).print(table)
        if study.note:
            click.echo(f"{study.note}.", err=aside)
    if study.regrets:
        limits = study.paper.special["regret"]
        within = sum(regret.holds(limits) for regret in study.regrets)
        click.echo(
            f"One stack, every world: within the band in {within} of {len(study.regrets)} cells.",
            err=aside,
        )
