"""Reading recordings as tables: CSV, plain or gzipped; every error names file, row and rule."""

import csv
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from penstock.errors import ConfigError
from penstock.sim.traces.trace import MOST_TOKENS


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
        text = raw.decode("utf-8-sig")  # Excel writes a BOM
        # Not `splitlines`, which also parts a text inside JSON at U+2028.
        return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ConfigError(f"trace {path}: cannot be read: {error}") from error


def rows_of(lines: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row by column name)."""
    reader = csv.DictReader(lines)
    for number in count(start=2):
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ConfigError(f"trace {path}, line {number}: must be CSV: {error}") from error
        if None in row or None in row.values():
            raise ConfigError(f"trace {path}, line {number}: must have a value for each column")
        yield number, row


def number_in(row: dict[str, str], column: str, path: Path, line: int) -> float:
    """Return the column's number.

    Raises:
        ConfigError: it is no finite number of at least 0.

    """
    text = row.get(column, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ConfigError(
            f"trace {path}, line {line}: {column} = {text!r}: must be a finite number >= 0"
        )
    return value


def count_in(row: dict[str, str], column: str, path: Path, line: int) -> int:
    """Return the column's number of tokens.

    Raises:
        ConfigError: it is no number from 0 to a billion.

    """
    value = number_in(row, column, path, line)
    if value > MOST_TOKENS:
        raise ConfigError(
            f"trace {path}, line {line}: {column} = {row[column]!r}: must be at most "
            f"{MOST_TOKENS:,}"
        )
    return int(value)
