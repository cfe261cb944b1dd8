"""Recorded replies of files (JSON lines, packed or not, and parquet), and bounded samples."""

from __future__ import annotations

import gzip
import hashlib
import heapq
import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

from penstock.core.rule import shown
from penstock.errors import ConfigError
from penstock.predict.features.call import CallFeatures
from penstock.predict.prior.folds import fold_of

_PARQUET_ENDINGS = (".parquet", ".pq")
_PARQUET_MARK, _GZIP_MARK = b"PAR1", b"\x1f\x8b"
_BATCH_ROWS = 2000  # of 10 kB each: 20 MB at a time


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a file's rows, each with the words for where it stands ("line 7", "row 7").

    Args:
        path: parquet if it says so, else JSON lines; both by content, whatever the ending. JSON
            lines are UTF-8, with a byte order mark or without, packed with gzip or not.
        columns: of parquet, only these are read.

    Raises:
        ConfigError: the file is damaged, or a line is not UTF-8 or no JSON object.

    """
    if _is_parquet(path):
        for number, row in enumerate(_parquet_rows(path, columns), start=1):
            yield f"row {number}", row
        return
    for number, row in _json_lines(path):
        if not isinstance(row, dict):
            raise ConfigError(
                f"{path}, line {number}: is not a JSON object: each line is one row, as "
                '{"prompt": "...", "output_tokens": 7}'
            )
        yield f"line {number}", row


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield what each line holds, with its number; empty lines are passed over."""
    for number, text in _lines(path):
        if not text.strip():
            continue
        try:
            text.encode()
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}, line {number}: {_why_unreadable(error)}") from error
        yield number, value


def _why_unreadable(error: Exception) -> str:
    """Return what is wrong with a line that cannot be read."""
    if isinstance(error, UnicodeEncodeError):
        byte = ord(error.object[error.start]) - 0xDC00
        return (
            f"is not UTF-8 (byte 0x{byte:02x} at character {error.start}): was it saved as "
            "Latin-1 or UTF-16, or packed other than with gzip?"
        )
    return f"is not JSON ({error}): is the file JSON lines, and whole?"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield lines; a byte that is no UTF-8 comes as a lone surrogate, for the caller to find."""
    try:
        with path.open("rb") as file:
            packed = file.peek(2).startswith(_GZIP_MARK)
            source = gzip.GzipFile(fileobj=file) if packed else file
            text = TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape")
            yield from enumerate(text, start=1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: is not there: is it the right path?") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read ({error}): is it whole?") from error


def _is_parquet(path: Path) -> bool:
    # Looking into a pipe would take its first bytes away.
    if path.suffix.lower() in _PARQUET_ENDINGS or not path.is_file():
        return path.suffix.lower() in _PARQUET_ENDINGS
    with path.open("rb") as file:
        return file.read(len(_PARQUET_MARK)) == _PARQUET_MARK


def _parquet_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigError(
            f"{path}: reading parquet needs pyarrow; install penstock[predict] or use JSONL"
        ) from error
    try:
        file = parquet.ParquetFile(path)
        known = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=known):
            yield from batch.to_pylist()
    # A damaged page is an OSError, a damaged text a UnicodeDecodeError (a ValueError).
    except (ArrowException, OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: is not a parquet file, or a damaged one ({error}): was it cut short, or "
            "is it JSON lines under another name?"
        ) from error


_COLUMNS = ("prompt", "output_tokens", "route", "model", "max_tokens")
TOKENS_MAX = 10_000_000
"""No reply has more tokens; a larger count is a time stamp or bytes."""


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One row of a file, checked, its features not read yet.

    Attributes:
        prompt: the text.
        output_tokens: the real count.
        route: the caller's label; None derives one.
        model: the provider's model, or empty.
        max_tokens: most output tokens allowed; None for no cap.

    """

    prompt: str
    output_tokens: float
    route: str | None
    model: str
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """One row: a call's features and what its reply had.

    Attributes:
        call: read from the row's prompt, route, model and max_tokens.
        prompt: the text, for those that want to see it; never logged.
        output_tokens: the real count.
        read_s: how long reading the features took.

    """

    call: CallFeatures
    prompt: str
    output_tokens: float
    read_s: float


def read_replies(path: Path) -> list[RecordedReply]:
    """Read a file with `prompt` and `output_tokens`, and maybe `route`, `model`, `max_tokens`.

    Raises:
        ConfigError: a row lacks a prompt or a count, or the file is neither parquet nor JSONL.

    """
    return replies_of(read_rows(path))


def read_rows(path: Path) -> Iterator[DatasetRow]:
    """Yield a file's rows, checked. Memory does not grow.

    Raises:
        ConfigError: a row lacks a prompt or a count, the file is neither parquet nor JSONL, or it
            has no rows.

    """
    place = ""
    for place, fields in read_table(path, _COLUMNS):
        try:
            row = _checked(fields)
        except ValueError as error:
            raise ConfigError(f"{path}, {place}: {error}") from error
        yield row
    if not place:
        raise ConfigError(f"{path}: has no rows; is it the right file?")


def replies_of(
    rows: Iterable[DatasetRow], *, clock: Callable[[], float] = time.perf_counter
) -> list[RecordedReply]:
    """Read the features of rows, and take the time of each."""
    return [_reply(row, clock) for row in rows]


def _reply(row: DatasetRow, clock: Callable[[], float]) -> RecordedReply:
    begun = clock()
    call = CallFeatures.from_prompt(
        row.prompt, model=row.model, route=row.route, max_tokens=row.max_tokens
    )
    return RecordedReply(call, row.prompt, row.output_tokens, clock() - begun)


def _checked(fields: Mapping[str, Any]) -> DatasetRow:
    prompt, tokens = fields.get("prompt"), _token_count(fields.get("output_tokens"))
    if not isinstance(prompt, str):
        raise ValueError(
            f"`prompt` is {shown(prompt)}; it must be text: is the field there, under this name, "
            "in every row?"
        )
    if tokens is None:
        value = fields.get("output_tokens")
        raise ValueError(
            f"`output_tokens` is {shown(value)}; it must be a finite number from 0 to "
            f"{TOKENS_MAX:,}: {_likely_cause(value)}"
        )
    return DatasetRow(
        prompt,
        tokens,
        str(fields["route"]) if fields.get("route") else None,
        str(fields.get("model") or ""),
        _cap(fields.get("max_tokens")),
    )


def _cap(value: Any) -> int | None:
    """Return a row's cap; missing values (null, NaN) and numbers below 1 are none."""
    if value is None or value != value:
        return None
    cap = _finite(value)
    if cap is None:
        raise ValueError(
            f"`max_tokens` is {shown(value)}; it must be a finite number, or null where there is "
            f"no cap: {_likely_cause(value)}"
        )
    return int(cap) if cap >= 1 else None


def _finite(value: object) -> float | None:
    """Return a finite number as a float; None for all else, and truth values are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # 10**400; a signalling NaN
        return None
    return number if math.isfinite(number) else None


def _token_count(value: object) -> float | None:
    """Return a count of tokens, from 0 to `TOKENS_MAX`; None for what is none."""
    number = _finite(value)
    return number if number is not None and 0 <= number <= TOKENS_MAX else None


def _likely_cause(value: object) -> str:
    """Return what probably went wrong where a number was to be, as a question."""
    if value is None:
        return "is the field there, under this name, in every row?"
    if isinstance(value, bool):
        return "a truth value is no number; was another field taken for it?"
    if isinstance(value, str):
        return "was the number written in quotes?"
    if isinstance(value, int | float | Decimal):
        return "is it a missing value or a sum gone wrong, or something other than tokens?"
    return "was another field taken for it?"


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """A recorded reply.

    Attributes:
        call: what was asked.
        log_tokens: logarithm of its output tokens per choice, at least 0.
        fold: equal for equal prompts, in 0 to FOLDS - 1.

    """

    call: CallFeatures
    log_tokens: float
    fold: int


def lesson(call: CallFeatures, output_tokens: float) -> Lesson:
    """Return the lesson that a recorded reply teaches."""
    return Lesson(call, math.log(max(1.0, output_tokens / call.choices)), fold_of(call))


TRAINED_MAX = 20_000
"""Rows (or prompts) that a training takes. Time and memory grow with them: a run on 200,000
stood at 3.9 GB after 13 minutes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows taken of more.

    Attributes:
        rows: in the order in which they came.
        seen: how many came.

    """

    rows: list[DatasetRow]
    seen: int

    @property
    def whole(self) -> bool:
        """Return whether nothing was left out."""
        return len(self.rows) == self.seen


def spread(rows: Iterable[DatasetRow], most: int, *, by: Literal["row", "prompt"]) -> Sample:
    """Return at most `most` rows, or all rows of at most `most` prompts, spread evenly.

    Chance decides, and always alike: the lowest checksums of row numbers or prompts stay.

    Source:
        Bottom-k sketches: Cohen & Kaplan, PODC 2007.

    """
    kept: dict[int, list[tuple[int, DatasetRow]]] = {}
    marks: list[int] = []  # a heap, the highest mark first
    seen = 0
    for seen, row in enumerate(rows, start=1):
        mark = _mark(row.prompt if by == "prompt" else str(seen))
        if mark in kept:
            kept[mark].append((seen, row))
            continue
        if len(marks) == most and mark > -marks[0]:
            continue
        kept[mark] = [(seen, row)]
        heapq.heappush(marks, -mark)
        if len(marks) > most:
            del kept[-heapq.heappop(marks)]
    numbered = sorted((entry for entries in kept.values() for entry in entries), key=_number)
    return Sample([row for _, row in numbered], seen)


def _number(entry: tuple[int, DatasetRow]) -> int:
    """Return a row's number in the files, by which rows keep their order."""
    return entry[0]


def _mark(key: str) -> int:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)
