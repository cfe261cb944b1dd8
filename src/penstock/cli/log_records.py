"""A decision log as commands take and read it."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from penstock.log.format import LogRecord

_FILE = click.Path(dir_okay=False, path_type=Path)


def takes_log(*, needed: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Have a command take its parameter `log` as its last argument or as --log, as all do alike.

    Args:
        needed: whether it is a mistake to give neither; `log` is None then.

    Raises:
        click.UsageError: both are given, or neither where it is needed.

    """

    def taking(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def called(*, log: Path | None, named_log: Path | None, **others: Any) -> Any:
            if log is not None and named_log is not None:
                raise click.UsageError(f"LOG and --log are the same: give {log} or {named_log}.")
            given = log if named_log is None else named_log
            if given is None and needed:
                raise click.UsageError("Missing argument 'LOG': the decision log to read.")
            return command(log=given, **others)

        called = click.option(
            "--log", "named_log", type=_FILE, help="Read this decision log; the same as LOG."
        )(called)
        shown = "LOG" if needed else "[LOG]"
        return click.argument("log", type=_FILE, required=False, metavar=shown)(called)

    return taking


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
