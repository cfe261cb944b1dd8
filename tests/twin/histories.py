"""Histories of simulated runs, without a file."""

from typing import Any

from penstock.log.format import Header, LogRecord
from penstock.sim.scenario import read_scenario, settings_of
from penstock.sim.simulate import run_one
from penstock.twin.history import History, history_of
from penstock.twin.shadow import DIRECT_POLICY

SPEED = {"tokens_per_s": 150.0, "ttft_s": 0.2}
DIRECT = dict(DIRECT_POLICY["scheduler"])
PROMPTS = {"prompt_tokens": {"median": 800, "sigma": 1.0, "most": 8000}}


def lines_of(
    provider: dict[str, Any], *, stack: dict[str, Any] | None = None, **workload: Any
) -> list[LogRecord]:
    """Return the decision log of a run under this stack, else the default one."""
    document = {
        "seeds": [3],
        "provider": provider,
        "workload": {"requests": 400, "rate_per_s": 2.0, "stream": True, **workload},
        "policies": {"it": stack or {}},
    }
    scenario = read_scenario(document)
    classes = scenario.workload.informant(scenario.classes).classes()
    settings = settings_of(scenario.policies["it"], classes, scenario.upstreams)
    header = Header(1, "run", 1000.0, 0.0, settings)
    lines: list[LogRecord] = []

    def watch(now: float, event: Any, actions: Any) -> None:
        lines.append(LogRecord(header, now, event))
        lines.extend(LogRecord(header, now, action) for action in actions)

    run_one(scenario, "it", 3, watch=watch)
    return lines


def history(provider: dict[str, Any], **workload: Any) -> History:
    return history_of(lines_of(provider, **workload))
