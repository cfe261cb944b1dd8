"""What a terminal may have: names that come from files, and lines no longer than it is wide."""

import shutil
import sys
from textwrap import fill
from typing import TextIO

import click


def printable(name: str) -> str:
    """Return a name without escapes and lone surrogates, which are spelt out instead.

    Whoever hands it to rich wraps it in a `Text`, or its brackets are read as markup.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)


def say(text: str, *, err: bool = False) -> None:
    """Print sentences, folded at words where a terminal shows them."""
    click.echo(folded(text, sys.stderr if err else sys.stdout), err=err)


def folded(text: str, stream: TextIO, *, before: int = 0) -> str:
    """Return the text in lines that fit the terminal; as it is where a program reads it.

    Args:
        text: lines of words.
        stream: where it goes.
        before: columns that something in front of it takes.

    """
    if not stream.isatty():
        return text
    width = max(20, shutil.get_terminal_size().columns - before)
    return "\n".join(
        fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )
