"""Recorded replies from parquet or JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError
from penstock.predict.call import CallFeatures

_COLUMNS = ("prompt", "output_tokens", "route", "model", "max_tokens")


@dataclass(frozen=True, slots=True)
class Reply:
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


def read_replies(path: Path) -> list[Reply]:
    """Read a file with `prompt` and `output_tokens`, and maybe `route`, `model`, `max_tokens`.

    Raises:
        ConfigError: a row lacks a prompt or a count, or the file is neither parquet nor JSONL.

    """
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    replies = []
    for number, row in enumerate(rows, start=1):
        prompt, tokens = row.get("prompt"), row.get("output_tokens")
        if not isinstance(prompt, str) or not isinstance(tokens, (int, float)) or tokens < 0:
            raise ConfigError(
                f"{path}, row {number}: needs a text `prompt` and a count `output_tokens`, has "
                f"{type(prompt).__name__} and {tokens!r}"
            )
        cap = row.get("max_tokens")
        begun = time.perf_counter()
        call = CallFeatures.from_prompt(
            prompt,
            model=str(row.get("model") or ""),
            route=str(row["route"]) if row.get("route") else None,
            max_tokens=int(cap) if cap is not None and cap == cap and cap >= 1 else None,
        )
        replies.append(Reply(call, prompt, float(tokens), time.perf_counter() - begun))
    if not replies:
        raise ConfigError(f"{path}: has no rows")
    return replies


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise ConfigError(
            f"{path}: reading parquet needs pyarrow; install penstock[predict] or use JSONL"
        ) from error
    try:
        file = parquet.ParquetFile(path)
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=columns):
            yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise ConfigError(f"{path}: is not a parquet file ({error})") from error


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}, line {number}: is not JSON ({error})") from error
            if not isinstance(row, dict):
                raise ConfigError(f"{path}, line {number}: is not a JSON object")
            yield row
