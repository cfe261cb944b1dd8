"""Penstock's own decision log as a trace: yesterday's traffic, for another policy.

Only the lines that say what arrived and how long it really was are read; the log's format is
docs/reference/decision-log.md, version 1. (The reader in `runtime` replays decisions exactly; a
simulation needs the traffic alone, and drivers do not import each other.)
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.core.model import TokenEstimate, TrafficClass
from penstock.errors import ConfigError
from penstock.sim.calls import Item, Told
from penstock.sim.traces.trace import RowTrace

HEADER_KEY = "penstock_decision_log"
_VERSION = 1


def read_decision_log(lines: list[str], path: Path) -> RowTrace:
    """Return the traffic of the log's first run.

    A request that never got a whole reply (refused, failed, cancelled) is as long as was
    predicted, or it would be missing from the load that another policy has to bear.

    Raises:
        ConfigError: a line is no record, the version is not ours, or no request is in it.

    """
    header = _record(lines[0], path, 1)
    if header.get(HEADER_KEY) != _VERSION:
        raise ConfigError(f"trace {path}, line 1: {HEADER_KEY}: must be {_VERSION}")
    arrived: dict[int, dict[str, Any]] = {}
    lengths: dict[int, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        record = _record(line, path, number)
        if HEADER_KEY in record:
            break  # the next run counts its requests and its seconds anew
        if record.get("event") == "arrived":
            arrived[record["request"]["id"]] = record["request"]
        elif record.get("event") == "completed" and record.get("output_tokens") is not None:
            lengths[record["request_id"]] = record["output_tokens"]
    if not arrived:
        raise ConfigError(f"trace {path}: must have at least one request that arrived")
    items = [_item(request, lengths.get(id_)) for id_, request in arrived.items()]
    first = min(item.at for item in items)
    rows = tuple(_since(first, item) for item in sorted(items, key=lambda item: item.at))
    return RowTrace(rows, classes=_classes(header, rows))


def _record(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"trace {path}, line {number}: must be JSON: {error}") from error
    if not isinstance(record, dict):
        raise ConfigError(f"trace {path}, line {number}: must be a JSON object")
    return record


def _item(request: Mapping[str, Any], output_tokens: int | None) -> Item:
    estimate = TokenEstimate(
        request["estimate"]["p50_tokens"], request["estimate"]["p90_tokens"], "recorded"
    )
    at = request["arrived_at"]
    deadline_s = _or_inf(request["deadline"]) - at
    return Item(
        at=at,
        output_tokens=round(estimate.p50_tokens) if output_tokens is None else output_tokens,
        prompt_tokens=request["prompt_tokens"],
        session=request["session"],
        deadline_s=deadline_s,
        tenant=request["tenant"],
        recorded=Told(request["traffic_class"], estimate, deadline_s),
    )


def _since(first: float, item: Item) -> Item:
    return item.moved_to(item.at - first)


def _classes(header: Mapping[str, Any], rows: tuple[Item, ...]) -> tuple[TrafficClass, ...]:
    settings = header.get("settings") or {}
    known = [_class(table) for table in settings.get("classes", [])]
    names = {known_class.name for known_class in known}
    seen = dict.fromkeys(row.recorded.traffic_class for row in rows if row.recorded)
    return tuple(known) + tuple(TrafficClass(name) for name in seen if name not in names)


def _class(table: Mapping[str, Any]) -> TrafficClass:
    return TrafficClass(
        table["name"],
        weight=table.get("weight", 1.0),
        deadline_s=_or_inf(table.get("deadline_s")),
        queue_limit=table.get("queue_limit", 100_000),
        queue_limit_tokens=_or_inf(table.get("queue_limit_tokens")),
    )


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
