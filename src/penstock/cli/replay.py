"""`penstock replay`: parse, wire, print."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.options import records_of, takes_log
from penstock.cli.printable import say

if TYPE_CHECKING:
    from penstock.core.events import Action
    from penstock.log.format import Header, LogRecord


@dataclass(slots=True)
class LogComparison:
    """How one run of a log compares with what is decided now.

    Attributes:
        decisions: how many were recorded.
        differences: at how many moments something else is decided now.
        first: the first such moment in words, or empty.

    """

    run: str
    decisions: int = 0
    differences: int = 0
    first: str = ""


@click.command()
@takes_log()
@click.option("--run", help="Only this run of the log: the first part of its requests' ids.")
def command(log: Path, run: str | None) -> None:
    """Decide again what LOG recorded, and say where the decisions differ.

    LOG is a decision log (log.decisions_path in the configuration). Everything that the
    scheduler was told is told to a fresh one, at the recorded times. Ends with status 1 if it
    decides anything differently: this penstock is another version, or the log was changed.

    To try another policy on the same traffic, name the log as `trace` in a scenario for
    `penstock simulate`.
    """
    cut: list[int] = []
    replays = [
        compare(header, records, cut)
        for header, records in groupby(records_of(log, cut), key=lambda record: record.header)
        if run in (None, header.run)
    ]
    if not replays:
        raise click.ClickException(f"{log}: nothing to replay" + (f" in run {run}" if run else ""))
    for each in replays:
        click.echo(f"Run {each.run}: {each.decisions} decisions, {each.differences} differ.")
        if each.first:
            say(each.first)
    if any(each.differences for each in replays):
        sys.exit(1)


def compare(
    header: "Header", records: Iterator["LogRecord"], cut: Sequence[int] = ()
) -> LogComparison:
    """Return how a run's recorded decisions compare with what is decided now.

    `cut` is filled while the records are read; what the last moment then lacks is no difference.
    """
    from penstock.log.reader import replayed

    result = LogComparison(header.run)
    for now, recorded, decided in replayed(records):
        result.decisions += len(recorded)
        if recorded == decided or (cut and recorded == decided[: len(recorded)]):
            continue
        result.differences += 1
        if not result.first:
            result.first = (
                f"The first: {now - header.started_at:.3f} s after its start\n"
                f"  recorded: {_words(recorded)}\n"
                f"  now:      {_words(decided)}"
            )
    return result


def _words(actions: "list[Action]") -> str:
    return "; ".join(map(_in_words, actions)) or "nothing"


def _in_words(action: "Action") -> str:
    from penstock.core.events import WindowMoved

    if isinstance(action, WindowMoved):
        return f"{action}"
    return f"{type(action).__name__} {action.request.id} {action.why}"
