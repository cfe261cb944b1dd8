"""`penstock demo`: parse, wire, print."""

import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(2, 600),
    default=9.0,
    show_default=True,
    help="How long each of the three loads lasts.",
)
@click.option("--seed", default=1, show_default=True, help="Draw the load by it.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path("penstock-demo.html"),
    show_default=True,
    help="Where the report goes.",
)
def command(seconds: float, seed: int, out: Path) -> None:
    """Show direct calls, a FIFO and penstock side by side, in under a minute.

    Starts a provider whose capacity is hidden, sends it more chat completions than it can serve,
    with the openai SDK: first directly, then through a first-come-first-served sidecar, then
    through penstock. Ends with the paper's metrics side by side and a report with plots. It
    needs no network, no key and no configuration.
    """
    from rich.console import Console

    from penstock.experiments.demo.run import run

    verdict = run(seconds=seconds, seed=seed, out=out, console=Console())
    if not verdict.kept:
        click.echo("This run did not keep both promises: is the machine busy?", err=True)
        sys.exit(1)
