"""Files that a command will write: tried before its work begins, not after an hour of it."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from penstock.runtime.out_file import likely_cause, try_file


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
