"""`penstock fit`: parse, wire, print."""

import sys
from pathlib import Path

import click

from penstock.cli.options import OutFile, is_dash, keep_apart, takes_log, write_text
from penstock.cli.printable import say
from penstock.cli.twin_read import UNTRUSTED, in_words, progress, read_history


@click.command()
@takes_log()
@click.option(
    "-o",
    "--out",
    type=OutFile(allow_dash=True),
    help="Write the scenario to this file; - or nothing for standard output.",
)
@click.option("--run", help="This run of the log instead of its last one.")
def command(log: Path, out: Path | None, run: str | None) -> None:
    """Fit a model of the provider to LOG, a decision log, and write it as a scenario.

    `penstock simulate` takes the scenario, with LOG as its traffic. The fit checks itself: of the
    log's first 60 % it must tell what came after, within 2 points of deadlines met and 15 % of the
    latencies' P50 and P95. Ends with status 3 if it does not; the scenario is written all the same,
    and says so.
    """
    from penstock.twin.model import twin_of
    from penstock.twin.scenario_file import scenario_text

    keep_apart({"LOG": log, "--out": out})
    history = read_history(log, run)
    with progress() as step:
        twin = twin_of(history, on_step=step)
    on_screen = out is None or is_dash(out)
    folder = Path() if out is None or on_screen else out.parent
    text = scenario_text(history, twin, log=log, folder=folder)
    if out is None or on_screen:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
        say(f"written: {out}")
    say("\n".join(in_words(twin.check)), err=on_screen)
    if not twin.check.passed:
        sys.exit(UNTRUSTED)
