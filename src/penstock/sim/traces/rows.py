"""Traces with a row per call: Azure, Mooncake, and lengths alone (Vidur).

Sources:
    Azure/AzurePublicDataset (Patel et al., Splitwise, ISCA 2024), CC-BY;
    kvcache-ai/Mooncake (FAST 2025), Apache-2.0; microsoft/vidur, MIT.

"""

from pathlib import Path

from penstock.errors import ConfigError
from penstock.sim.calls import Item
from penstock.sim.traces.tables import count_in, number_in, rows_of
from penstock.sim.traces.trace import RowTrace

MOONCAKE_STEP_S = 3.0
"""Mooncake's conversation arrivals are rounded to this; its own column tells the file."""


def read_rows(lines: list[str], path: Path) -> RowTrace:
    """Return the recording: columns `output_tokens` and, where there, `t`, `input_tokens`.

    With Mooncake's `first_block`, calls of one conversation share a session.

    Raises:
        ConfigError: a value is no number, or there is no row at all.

    """
    columns = lines[0].split(",")
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
