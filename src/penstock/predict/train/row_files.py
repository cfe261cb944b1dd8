"""Rows of files: JSON lines, packed with gzip or not, and parquet, told apart by their content."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError

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
