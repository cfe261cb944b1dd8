"""Writes a twin as a scenario that `penstock simulate` takes."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.core.settings import PolicySpec
from penstock.twin.history import History
from penstock.twin.model import Twin
from penstock.wire import jsonio

_LAYERS = ("allocation", "ordering", "overload", "capacity")


def scenario_text(history: History, twin: Twin, *, log: Path, folder: Path) -> str:
    """Return the scenario: the fitted providers, the log as its trace, and the log's own stack.

    Args:
        history: what was fitted.
        twin: what was found.
        log: the trace.
        folder: where the scenario will stand; the trace's path is taken from there.

    """
    trace = os.path.relpath(log.resolve(), folder.resolve())
    workload = {"trace": trace, "information": "recorded", "stream": _share(history.streamed())}
    stack = history.settings.stack
    policy = {layer: _spec(getattr(stack, layer)) for layer in _LAYERS}
    lines = [f"# Fitted to {len(history.attempts)} attempts of run {history.run}."]
    lines += [f"# Not to be trusted here: {fault}." for fault in twin.check.faults]
    for name, table in twin.providers.items():
        lines += ["", f"[providers.{_key(name)}]", *_pairs(table)]
    lines += ["", "[workload]", *_pairs(workload), "", "[policies.recorded]", *_pairs(policy)]
    return "\n".join(lines) + "\n"


def _share(value: float) -> float | bool:
    return value == 1.0 if value in (0.0, 1.0) else round(value, 3)


def _spec(spec: PolicySpec) -> Any:
    return {"kind": spec.kind, **spec.options} if spec.options else spec.kind


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items()]


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() else _value(name)


def _value(value: Any) -> str:
    """Return a value as TOML has it; of texts, JSON's form is one of TOML's."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_pairs(value)) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return jsonio.dumps(value).decode()
