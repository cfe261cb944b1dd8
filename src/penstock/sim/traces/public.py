"""Azure's and Mooncake's traces as they are published, without a conversion.

Sources:
    AzureLLMInferenceTrace_*.csv, Azure/AzurePublicDataset (Patel et al., Splitwise, ISCA 2024),
    CC-BY; *_trace.jsonl, kvcache-ai/Mooncake (Qin et al., FAST 2025), Apache-2.0.

"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from penstock.core.rule import Rule
from penstock.errors import ConfigError
from penstock.sim.calls import Item
from penstock.sim.traces.log_lines import COUNT, LogLine, lines_of
from penstock.sim.traces.rows import MOONCAKE_STEP_S
from penstock.sim.traces.tables import count_in, rows_of
from penstock.sim.traces.trace import RowTrace

AZURE_COLUMNS = frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"})
MOONCAKE_KEYS = frozenset({"timestamp", "output_length"})
_TIME_MS = Rule(low=0, high=1e12)


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
    items = [_call(line) for line in lines_of(lines, path)]
    rounded = all(item.at % MOONCAKE_STEP_S == 0 for item in items)
    ordered = tuple(sorted(items, key=lambda item: item.at))
    return RowTrace(ordered, jitter_s=MOONCAKE_STEP_S if rounded else 0.0)


def _call(line: LogLine) -> Item:
    blocks = line.table.get("hash_ids", [])
    if not isinstance(blocks, list):
        raise line.error("hash_ids", "must be a list of block ids")
    return Item(
        at=line.number_of("timestamp", _TIME_MS) / 1000.0,
        output_tokens=line.number_of("output_length", COUNT),
        prompt_tokens=line.number_of("input_length", COUNT, default=0),
        session=str(blocks[0]) if blocks else "",
    )


def _time_in(text: str, path: Path, number: int) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"trace {path}, line {number}: TIMESTAMP = {text!r}: must be a date and a time, such "
            "as 2023-11-16 18:15:46.6805900"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
