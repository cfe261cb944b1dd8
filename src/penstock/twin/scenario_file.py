"""Writes a twin as a scenario that `penstock simulate` takes."""

import os
from pathlib import Path
from typing import Any

import tomlkit

from penstock.twin.history import History
from penstock.twin.model import Twin
from penstock.twin.policy import plain_of

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
    workload: dict[str, Any] = {
        "trace": trace,
        "information": "recorded",
        "stream": _share(history.streamed()),
    }
    if history.refusal_s():
        workload["refusal_s"] = round(history.refusal_s(), 4)
    stack = history.settings.stack
    policy = {layer: plain_of(getattr(stack, layer)) for layer in _LAYERS}
    head = [f"# Fitted to {len(history.attempts)} attempts of run {history.run}."]
    head += [f"# Not to be trusted here: {fault}." for fault in twin.check.faults]
    tables = {
        "providers": twin.providers,
        "workload": workload,
        "policies": {"recorded": policy},
    }
    return "\n".join([*head, "", tomlkit.dumps(tables)])


def _share(value: float) -> float | bool:
    return value == 1.0 if value in (0.0, 1.0) else round(value, 3)
