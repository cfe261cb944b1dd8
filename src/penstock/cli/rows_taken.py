"""The recorded replies that `penstock predict` takes of its files, and what it says meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from penstock.predict.train.datasets import RecordedReply

_LONG_ROWS = 2_000
_LONG_BYTES = 10_000_000


def note(text: str) -> None:
    """Print something beside the results, on stderr."""
    click.echo(text, err=True)


def is_long(replies: Sequence[RecordedReply]) -> bool:
    """Return whether working through so many replies takes seconds and more."""
    return len(replies) > _LONG_ROWS


def note_reading(files: Iterable[Path]) -> None:
    """Print of large files that they are being read."""
    for file in files:
        size = file.stat().st_size
        if size > _LONG_BYTES:
            note(f"reading {file}: {size / 1e6:,.0f} MB")


def to_train_on(files: Sequence[Path], *, by: Literal["row", "prompt"]) -> list[RecordedReply]:
    """Return replies spread evenly over the files, at most as many as a training takes.

    Raises:
        ConfigError: a row or a file cannot be used.

    """
    from penstock.predict.train.datasets import read_rows, replies_of
    from penstock.predict.train.sampling import TRAINED_MAX, spread

    note_reading(files)
    sample = spread(chain.from_iterable(map(read_rows, files)), TRAINED_MAX, by=by)
    if not sample.whole:
        most = f"{TRAINED_MAX:,}" + (" prompts" if by == "prompt" else "")
        note(
            f"{sample.seen:,} rows, more than the {most} of a training: {len(sample.rows):,} are "
            "taken, spread evenly, the same ones every time"
        )
    replies = replies_of(sample.rows)
    _note_fitting(replies)
    return replies


def last_ones(files: Sequence[Path], most: int) -> list[RecordedReply]:
    """Return the last `most` replies of the files.

    Raises:
        ConfigError: a row or a file cannot be used.

    """
    from penstock.predict.train.datasets import read_rows, replies_of

    note_reading(files)
    replies = replies_of(deque(chain.from_iterable(map(read_rows, files)), maxlen=most))
    _note_fitting(replies)
    return replies


def _note_fitting(replies: Sequence[RecordedReply]) -> None:
    if is_long(replies):
        note(f"fitting to {len(replies):,} replies; this takes a minute or some")
