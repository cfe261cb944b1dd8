"""Which recording a file is: told by its columns, not by its name.

Azure's and Mooncake's are read as they are published.

Sources:
    AzureLLMInferenceTrace_*.csv, Azure/AzurePublicDataset (Patel et al., Splitwise, ISCA 2024),
    CC-BY; *_trace.jsonl, kvcache-ai/Mooncake (Qin et al., FAST 2025), Apache-2.0; lengths alone:
    microsoft/vidur, MIT.

"""

import csv
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from penstock.core.rule import Rule
from penstock.errors import ConfigError
from penstock.schema.reading import read_params
from penstock.schema.types import Items, Table, ruled
from penstock.sim.calls import Item
from penstock.sim.params import count
from penstock.sim.traces.decision_log import HEADER_KEY, read_decision_log
from penstock.sim.traces.servegen import ServeGenTrace, read_servegen
from penstock.sim.traces.trace import (
    MOST_TOKENS,
    RowTrace,
    count_in,
    number_in,
    read_lines,
    rows_of,
)

logger = logging.getLogger("penstock.traces")

AZURE_COLUMNS = frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"})
_COLUMNS = ("t", "input_tokens", "output_tokens", "prefix_hit_tokens", "first_block")
MOONCAKE_KEYS = frozenset({"timestamp", "output_length"})
MOONCAKE_STEP_S = 3.0
"""Mooncake's conversation arrivals are rounded to this; its own column tells the file."""


class _MooncakeCall(Table):
    """A line of Mooncake's; `timestamp` is in milliseconds."""

    model_config = ConfigDict(extra="ignore")
    timestamp: float = ruled(Rule(low=0, high=1e12))
    output_length: int = ruled(Rule(low=0, high=MOST_TOKENS, whole=True))
    input_length: int = count(0, low=0, high=MOST_TOKENS)
    hash_ids: Items[Any] = ()


def read_azure(lines: Sequence[str], path: Path) -> RowTrace:
    """Return the recording; its times are a calendar's.

    Raises:
        ConfigError: a time is none, a value is no number, or there is no row at all.

    """
    rows = [
        (
            _time_in(row["TIMESTAMP"], path, number),
            count_in(row, "ContextTokens", path, number),
            count_in(row, "GeneratedTokens", path, number),
        )
        for number, row in rows_of(lines, path)
    ]
    if not rows:
        raise ConfigError(f"trace {path}: must have at least one row")
    first = min(at for at, _, _ in rows)
    items = [Item((at - first).total_seconds(), reply, prompt) for at, prompt, reply in rows]
    return RowTrace(tuple(sorted(items, key=lambda item: item.at)))


def read_mooncake(lines: list[str], path: Path) -> RowTrace:
    """Return the recording; calls whose prompts begin with the same block share a session.

    Times that are all multiples of 3 s were rounded, and are spread over them.

    Raises:
        ConfigError: a line is no JSON object, or a value is no number.

    """
    items = []
    for number, line in enumerate(lines, start=1):
        try:
            call = read_params(_MooncakeCall, json.loads(line), where="")
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"trace {path}, line {number}: {error}") from error
        session = str(call.hash_ids[0]) if call.hash_ids else ""
        at = call.timestamp / 1000.0
        items.append(Item(at, call.output_length, call.input_length, session))
    rounded = all(item.at % MOONCAKE_STEP_S == 0 for item in items)
    ordered = tuple(sorted(items, key=lambda item: item.at))
    return RowTrace(ordered, jitter_s=MOONCAKE_STEP_S if rounded else 0.0)


def read_rows(lines: list[str], path: Path) -> RowTrace:
    """Return the recording: columns `output_tokens` and, where there, `t`, `input_tokens`.

    With Mooncake's `first_block`, calls of one conversation share a session.

    Raises:
        ConfigError: a value is no number, or there is no row at all.

    """
    columns = next(csv.reader(lines[:1]))
    if unread := [name for name in columns if name not in _COLUMNS]:
        logger.warning("trace %s: these columns are not read: %s", path, ", ".join(unread))
    timed = "t" in columns
    items: list[Item] = []
    for number, row in rows_of(lines, path):
        items.append(
            Item(
                at=number_in(row, "t", path, number) if timed else 0.0,
                output_tokens=count_in(row, "output_tokens", path, number),
                prompt_tokens=(
                    count_in(row, "input_tokens", path, number) if "input_tokens" in columns else 0
                ),
                session=row.get("first_block", ""),
            )
        )
    if not items:
        raise ConfigError(f"trace {path}: must have at least one row")
    jitter_s = MOONCAKE_STEP_S if "prefix_hit_tokens" in columns else 0.0
    return RowTrace(tuple(sorted(items, key=lambda item: item.at)), timed, jitter_s)


def _time_in(text: str, path: Path, number: int) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"trace {path}, line {number}: TIMESTAMP = {text!r}: must be a date and a time, such "
            "as 2023-11-16 18:15:46.6805900"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


Trace = RowTrace | ServeGenTrace


def read_trace(path: Path) -> Trace:
    """Return the recording in a file.

    Known: Azure's CSV and Mooncake's JSON lines as published, CSV with `output_tokens` and
    optionally `t` and `input_tokens`, ServeGen's rates, penstock's decision log. Gzip is unpacked.

    Raises:
        ConfigError: the file cannot be read or is none of these.

    """
    lines = [line for line in read_lines(path) if line.strip()]
    if not lines:
        raise ConfigError(f"trace {path}: must not be empty")
    if lines[0].startswith("{"):
        if all(f'"{key}"' in lines[0] for key in MOONCAKE_KEYS) and HEADER_KEY not in lines[0]:
            return read_mooncake(lines, path)
        return read_decision_log(lines, path)
    columns = next(csv.reader(lines[:1]))
    if {"client", "t", "rate", "pat", "p1"} <= set(columns):
        return read_servegen(lines, path)
    if set(columns) >= AZURE_COLUMNS:
        return read_azure(lines, path)
    if "output_tokens" in columns:
        return read_rows(lines, path)
    raise ConfigError(
        f"trace {path}: first line {lines[0][:60]!r}: must be the header of a CSV with the column "
        "output_tokens (and t, if timed), of Azure's trace or of ServeGen's rates"
    )
