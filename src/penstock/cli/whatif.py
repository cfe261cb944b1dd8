"""`penstock whatif`: parse, wire, print."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.options import (
    OutFile,
    is_dash,
    keep_apart,
    standard_output,
    takes_log,
    write_text,
)
from penstock.cli.printable import printable, say
from penstock.cli.twin_read import UNTRUSTED, in_words, progress, read_history

if TYPE_CHECKING:
    from penstock.twin.whatif import Difference, Group


@click.command()
@takes_log()
@click.option(
    "--policy",
    "policy_file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with what is different: tables of penstock.toml ([scheduler], [[classes]], "
    "[[upstreams]]), each with the keys that change.",
)
@click.option("--run", help="This run of the log instead of its last one.")
@click.option("--price-in", default=0.0, help="USD per million input tokens, for the money shown.")
@click.option("--price-out", default=0.0, help="USD per million output tokens.")
@click.option(
    "--json",
    "json_file",
    type=OutFile(allow_dash=True),
    help="Write the figures to this file as JSON; - for standard output, without the table.",
)
def command(
    log: Path,
    policy_file: Path,
    run: str | None,
    price_in: float,
    price_out: float,
    json_file: Path | None,
) -> None:
    """Return what another configuration would have done with the traffic of LOG, a decision log.

    A model of the provider is fitted to the log and the log's requests run against it, under the
    configuration that held and under the other one. Each difference has a 95 % interval. Ends with
    status 3 if the model does not tell what really happened: then nothing here is to be trusted,
    and the reason is given.
    """
    from penstock.schema.reading import read_toml
    from penstock.twin.model import twin_of
    from penstock.twin.policy import read_policy
    from penstock.twin.whatif import plain, whatif

    keep_apart({"LOG": log, "--policy": policy_file, "--json": json_file})
    policy = read_policy(read_toml(policy_file), where=str(policy_file))
    history = read_history(log, run)
    policy.settings(history.settings)  # what it names must be there before minutes are spent
    price = (price_in / 1e6, price_out / 1e6)
    prices = {each.name: price for each in history.settings.upstreams}
    with progress() as step:
        twin = twin_of(history, on_step=step)
        step(f"running {len(history.calls):,} calls under both configurations")
        groups = whatif(history, twin, policy, prices=prices)
    if not is_dash(json_file):
        with standard_output():
            print_groups(groups)
            say("\n".join(in_words(twin.check)))
    if json_file is not None:
        faults = list(twin.check.faults)
        report = {"trusted": twin.check.passed, "because": faults, "groups": plain(groups)}
        write_text(json_file, json.dumps(report, indent=2, allow_nan=False) + "\n")
    if not twin.check.passed:
        sys.exit(UNTRUSTED)


_FIGURES = {
    "met": ("deadlines met", 100.0, "{:.1f} %", "{:+z.1f}", " points"),
    "p50_s": ("latency P50", 1.0, "{:.2f} s", "{:+z.2f}", " s"),
    "p95_s": ("latency P95", 1.0, "{:.2f} s", "{:+z.2f}", " s"),
    "refused": ("refused", 100.0, "{:.1f} %", "{:+z.1f}", " points"),
    "usd": ("USD", 1.0, "{:.2f}", "{:+z.2f}", ""),
}
_COLUMNS = {"": 13, "really": 9, "twin": 9, "what if": 9, "change": 12, "95 % interval": 20}
"""Widths: with a blank between, 77 of a terminal's 80."""


def print_groups(groups: Sequence["Group"]) -> None:
    """Print the groups' figures; money only where a price was given."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if Console().is_terminal else 80)
    priced = any(group.figures["usd"].now or group.figures["usd"].then for group in groups)
    unsure = False
    for group in groups:
        table = Table(box=None, padding=(0, 1, 0, 0))
        for name, width in _COLUMNS.items():
            table.add_column(name, min_width=width, overflow="fold")
        for figure, form in _FIGURES.items():
            if figure != "usd" or priced:
                table.add_row(*_cells(group.figures[figure], *form))
                unsure = unsure or _unsure(group.figures[figure])
        name = printable(group.name) or "(none)"
        title = "all" if group.kind == "all" else f"{group.kind} {name}"
        console.print(Text(f"{title}: {group.calls:,} calls", "bold"))
        console.print(table)
        console.print()
    if unsure:
        console.print("?  The interval holds 0: there may be no change.\n")


def _unsure(found: "Difference") -> bool:
    return not found.sure and not math.isnan(found.low)


def _cells(
    found: "Difference", title: str, times: float, form: str, change: str, unit: str
) -> list[str]:
    def shown(value: float, pattern: str) -> str:
        return "-" if math.isnan(value) else pattern.format(value * times)

    interval = f"{shown(found.low, change)} to {shown(found.high, change)}"
    doubt = " ?" if _unsure(found) else ""
    real, now, then = (shown(value, form) for value in (found.real, found.now, found.then))
    return [title, real, now, then, shown(found.change, change + unit), interval + doubt]
