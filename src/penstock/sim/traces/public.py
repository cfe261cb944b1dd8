"""Azure's and Mooncake's traces as they are published, without a conversion.

Sources:
    AzureLLMInferenceTrace_*.csv, Azure/AzurePublicDataset (Patel et al., Splitwise, ISCA 2024),
    CC-BY; *_trace.jsonl, kvcache-ai/Mooncake (Qin et al., FAST 2025), Apache-2.0.

"""

import json
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
from penstock.sim.traces.rows import MOONCAKE_STEP_S
from penstock.sim.traces.tables import count_in, rows_of
from penstock.sim.traces.trace import MOST_TOKENS, RowTrace

AZURE_COLUMNS = frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"})
MOONCAKE_KEYS = frozenset({"timestamp", "output_length"})


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


def _time_in(text: str, path: Path, number: int) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"trace {path}, line {number}: TIMESTAMP = {text!r}: must be a date and a time, such "
            "as 2023-11-16 18:15:46.6805900"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
