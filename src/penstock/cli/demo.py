"""`penstock demo`: parse, wire, print."""

import sys
from pathlib import Path

import click

from penstock.cli.options import OutFile, keep_apart, make_folder, sigterm_as_ctrl_c

BELOW_PROMISES = 3
"""Exit status of a demo that ran to its end; 1 and 2 are errors, as everywhere."""


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
    type=OutFile(),
    default=Path("penstock-demo.html"),
    show_default=True,
    help="Where the report goes.",
)
@click.option(
    "--prompts",
    metavar="FILE",
    help="Send these prompts instead, with replies as long as theirs were: parquet or JSON "
    "lines with prompt, output_tokens, maybe route, model, max_tokens; `sample` for the 497 that "
    "come along.",
)
@click.option(
    "--prior",
    default="shipped",
    show_default=True,
    help="With --prompts: what predictions start from: shipped, none, or a file from `penstock "
    "predict train`.",
)
def command(seconds: float, seed: int, out: Path, prompts: str | None, prior: str) -> None:
    """Show direct calls, a FIFO and penstock side by side, in under a minute.

    Starts a provider whose capacity is hidden, sends it more chat completions than it can serve,
    with the openai SDK: first directly, then through a first-come-first-served sidecar, then
    through penstock. Ends with the paper's metrics side by side and a report with plots. It
    needs no network, no key and no configuration.

    With --prompts, the sidecar predicts how long replies will be and learns as they come; a fourth
    run is told the lengths beforehand, and shows what knowing them would have given.

    Ends with status 3 where the figures are below what penstock promises: the load is real and in
    real time, so a busy machine can be why. Below 9 seconds nothing is promised: no queue grows in
    so short a load.
    """
    from rich.console import Console

    from penstock.experiments.demo.run import run

    if prompts is None and prior != "shipped":
        raise click.UsageError("--prior: only with --prompts; without, nothing is predicted.")
    if prior not in ("shipped", "none") and not Path(prior).is_file():
        raise click.BadParameter(
            f"{prior!r} must be shipped, none or a file that is there (was it trained somewhere "
            "else?)",
            param_hint="--prior",
        )
    keep_apart({"--prompts": Path(prompts) if prompts else None, "--out": out})
    make_folder(out)
    try:
        with sigterm_as_ctrl_c():
            verdict = run(
                seconds=seconds, seed=seed, out=out, console=Console(), prompts=prompts, prior=prior
            )
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    if not verdict.kept:
        click.echo("This run did not keep its promises: is the machine busy?", err=True)
        sys.exit(BELOW_PROMISES)
