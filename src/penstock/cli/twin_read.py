"""What `penstock fit` and `penstock whatif` share: reading a log, and what they say of a check."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.options import records_of
from penstock.cli.printable import printable, say

if TYPE_CHECKING:
    from penstock.twin.check import Check
    from penstock.twin.history import History

UNTRUSTED = 3
"""The exit status where the twin does not tell what really happened."""


def read_history(log: Path, run: str | None) -> "History":
    """Return the history of the log's last run, or of the named one.

    Raises:
        click.ClickException: there is no such log.

    """
    from penstock.twin.history import history_of

    history = history_of(records_of(log), run=run)
    if history.earlier_calls:
        since = datetime.fromtimestamp(history.started_unix_s).astimezone()
        say(
            f"Read: the {len(history.calls):,} calls since {since:%Y-%m-%d %H:%M:%S}, when the "
            f"scheduler's settings last changed; not the {history.earlier_calls:,} before, which "
            "other settings decided.",
            err=True,
        )
    return history


@contextmanager
def progress() -> Iterator[Callable[[str], object]]:
    """Show on standard error that a fit goes on, for it takes seconds; yield what says with what.

    Where that is no terminal, each step is a line.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda step: click.echo(f"{step} ...", err=True)
        return
    with console.status("") as status:
        yield lambda step: status.update(f"{printable(step)} ...")


def in_words(check: "Check") -> list[str]:
    """Return what the check found."""
    real, twin = check.real, check.twin
    lines = [
        f"On the last {real.calls} calls, which the fit had not seen:",
        f"  deadlines met  {real.met:7.1%} really, {twin.met:7.1%} by the twin",
        f"  latency P50    {real.p50_s:7.2f} s      {twin.p50_s:7.2f} s",
        f"  latency P95    {real.p95_s:7.2f} s      {twin.p95_s:7.2f} s",
    ]
    if check.passed:
        return [*lines, "The twin tells them within 2 points and 15 %."]
    return [*lines, *(f"Not to be trusted here, because {printable(f)}." for f in check.faults)]
