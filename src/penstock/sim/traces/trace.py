"""Recordings of a row per call, and what each answers to, as `servegen` does too.

Tables are CSV, plain or gzipped; every error names file, row and rule.
"""

import csv
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from penstock.core.model import TrafficClass
from penstock.errors import ConfigError
from penstock.schema.types import Complaints
from penstock.sim.calls import Item

MOST_TOKENS = 1_000_000_000
"""More in one prompt or reply is no count of tokens."""


@dataclass(frozen=True, slots=True)
class RowTrace:
    """A recording of one row per call.

    Attributes:
        rows: in order of time; `at` is 0 throughout if the recording has no times.
        jitter_s: the recording's times are rounded down to this; spread evenly over it.
        classes: traffic classes that the recording itself speaks of.

    """

    rows: tuple[Item, ...]
    timed: bool = True
    jitter_s: float = 0.0
    classes: tuple[TrafficClass, ...] = ()

    def lengths(self) -> Sequence[int]:
        """Return output lengths that stand for the whole, in tokens."""
        return [row.output_tokens for row in self.rows]

    def items(
        self,
        chance: Random,
        *,
        count: int | None,
        rate_per_s: float | None,
        times: Iterator[float] | None,
    ) -> Iterator[Item]:
        """Yield the calls in order of time, from 0; with times, from any row on and round again.

        Args:
            chance: for what the recording leaves open (jitter, draws).
            count: how many will be taken; None for all.
            rate_per_s: stretch time to this mean rate; None for as recorded.
            times: arrival times for a recording without its own.

        """
        if times is not None:
            yield from self._on_times(chance, times, count)
            return
        rows = self.rows[:count]
        at = [row.at + self.jitter_s * chance.random() for row in rows]
        first = min(at, default=0.0)
        span_s = max(at, default=0.0) - first
        stretch = len(rows) / span_s / rate_per_s if rate_per_s and span_s > 0 else 1.0
        placed = sorted(((t - first) * stretch, n) for n, t in enumerate(at))
        for t, n in placed:
            yield rows[n].moved_to(t)

    def complaints(self, count: int | None, rate_per_s: float | None) -> Complaints:
        """Yield more calls than there are rows, and a rate for rows that all have one time."""
        if not self.timed:
            return
        if count is not None and count > len(self.rows):
            yield "requests", f"must be at most {len(self.rows)}: the trace has no more"
        rows = self.rows[:count]
        if rate_per_s and len(rows) > 1 and not self.jitter_s and rows[0].at == rows[-1].at:
            rule = (
                f"must not stand beside a trace whose rows all have the time {rows[0].at:g}: no "
                "stretching spreads them"
            )
            yield "rate_per_s", rule

    def _on_times(
        self, chance: Random, times: Iterator[float], count: int | None
    ) -> Iterator[Item]:
        start = chance.randrange(len(self.rows))
        for n, at in zip(range(count or len(self.rows)), times, strict=False):
            yield self.rows[(start + n) % len(self.rows)].moved_to(at)


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
