"""What several commands take: files to write, a decision log, a span of time, SIGTERM.

Files that a command will write are tried before its work begins, not after an hour of it.
"""

import errno
import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from penstock.private_file import likely_cause, try_file

if TYPE_CHECKING:
    from penstock.log.format import LogRecord


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Give SIGTERM the meaning that SIGINT has at that moment, so that children are ended too.

    At that moment, because `asyncio.run` cancels its main task on SIGINT. An exception that is
    raised into whatever runs would leave half-built objects, whose finalizers print tracebacks.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # SIGINT is ignored, as in a shell's background; SIGTERM is not
        handler = signal.default_int_handler
    handler(signum, frame)


_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d+)?)([smhd]?)\Z", re.ASCII)


class TimeSpan(click.ParamType[float]):
    """Seconds from 90s, 30m, 2h or 1d, above 0."""

    name = "time"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        found = _SPAN.match(value)
        seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
        if not seconds:
            self.fail(f"{value!r} must be a time above 0, such as 90s, 30m, 2h or 1d", param, ctx)
        return seconds


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


class OutFile(click.Path):
    """A file that will be written, checked while the command line is read.

    Nothing is left behind by the check, and nothing that stands there is changed. A folder that
    is not there is no mistake: `make_folder` makes it when there is something to write.

    Args:
        allow_dash: whether "-" stands for standard output.

    """

    def __init__(self, *, allow_dash: bool = False) -> None:
        """Take paths as `pathlib.Path`."""
        super().__init__(dir_okay=True, allow_dash=allow_dash, path_type=Path)
        self.name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or refuse what cannot be written."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not (self.allow_dash and is_dash(path)):
            try:
                try_file(path)
            except OSError as error:
                self.fail(refusal(path, error), param, ctx)
        return path


def refusal(path: Path | str, error: OSError) -> str:
    """Return value, rule and likely cause of an output that cannot be written."""
    named = path if isinstance(path, str) else repr(str(path))
    return f"{named} cannot be written ({error.strerror or error}): {likely_cause(error)}"


def is_dash(path: Path | None) -> bool:
    """Return whether a file's name stands for standard output."""
    return path is not None and str(path) == "-"


@contextmanager
def standard_output() -> Iterator[None]:
    """Print in this block what the user asked for: that it cannot be written is one line.

    A reader that has left, as `head` does, is no error; click and rich end quietly then.

    Raises:
        click.ClickException: standard output cannot be written.

    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        # What is still buffered would fail once more when Python ends, with a message of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.ClickException(refusal("standard output", error)) from error


def write_text(path: Path, text: str) -> None:
    """Write a result, in UTF-8; - is standard output.

    Raises:
        click.ClickException: it cannot be written after all.

    """
    if is_dash(path):
        with standard_output():
            click.echo(text, nl=False)
        return
    try:
        make_folder(path)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise click.ClickException(refusal(path, error)) from error


def make_folder(path: Path) -> None:
    """Make the folder of a file that is about to be written."""
    path.parent.mkdir(parents=True, exist_ok=True)


def keep_apart(files: Mapping[str, Path | Iterable[Path] | None]) -> None:
    """Refuse a command line on which one file would be written over another, or over an input.

    Args:
        files: by what the command line calls them; None where there is none.

    Raises:
        click.UsageError: two of them are one.

    """
    names: dict[object, str] = {}
    for name, given in files.items():
        for path in [given] if isinstance(given, Path) else given or ():
            if is_dash(path) or (path.exists() and not path.is_file()):
                continue  # /dev/null takes everything
            there = path.stat() if path.exists() else None
            which = path.resolve() if there is None else (there.st_dev, there.st_ino)
            other = names.setdefault(which, name)
            if other != name:
                raise click.UsageError(
                    f"{name} {str(path)!r}: is {other} too, and one would be written over the "
                    "other; was a name repeated?"
                )
