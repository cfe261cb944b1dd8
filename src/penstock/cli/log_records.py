"""A decision log as commands read it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from penstock.log.format import LogRecord


def records_of(log: Path, cut: list[int] | None = None) -> "Iterator[LogRecord]":
    """Yield a log's records; stderr says where a last line that a crash cut is passed over.

    Args:
        log: the file; its rotated elders are read before it.
        cut: takes the number of each such line.

    Raises:
        click.ClickException: there is no such log.

    """
    from penstock.log.reader import read_log

    def on_cut(file: Path, number: int) -> None:
        if cut is not None:
            cut.append(number)
        click.echo(f"{file}: its last line, {number}, is cut off and was passed over", err=True)

    try:
        yield from read_log(log, on_cut=on_cut)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None
