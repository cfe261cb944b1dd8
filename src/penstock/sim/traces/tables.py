"""Reading recordings as tables: CSV, plain or gzipped; every error names file, row and rule."""

import csv
import gzip
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from penstock.errors import ConfigError


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, gzipped or not.

    Raises:
        ConfigError: it cannot be read.

    """
    try:
        with path.open("rb") as file:
            raw = file.read()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        return raw.decode("utf-8").splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"trace {path}: cannot be read: {error}") from error


def rows_of(lines: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row by column name)."""
    for number, row in enumerate(csv.DictReader(lines), start=2):
        if None in row or None in row.values():
            raise ConfigError(f"trace {path}, line {number}: must have a value for each column")
        yield number, row


def number_in(
    row: dict[str, str], column: str, path: Path, line: int, *, low: float = 0.0
) -> float:
    """Return the column's number.

    Raises:
        ConfigError: it is no finite number of at least `low`.

    """
    text = row.get(column, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < low:
        raise ConfigError(
            f"trace {path}, line {line}: {column} = {text!r}: must be a finite number >= {low:g}"
        )
    return value
