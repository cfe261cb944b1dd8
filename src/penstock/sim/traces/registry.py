"""Which recording a file is: told by its columns, not by its name."""

import csv
from pathlib import Path

from penstock.errors import ConfigError
from penstock.sim.traces.decision_log import HEADER_KEY, read_decision_log
from penstock.sim.traces.public import (
    AZURE_COLUMNS,
    MOONCAKE_KEYS,
    read_azure,
    read_mooncake,
    read_rows,
)
from penstock.sim.traces.servegen import ServeGenTrace, read_servegen
from penstock.sim.traces.tables import read_lines
from penstock.sim.traces.trace import RowTrace

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
