"""A simulated run that leaves a decision log, as a sidecar would have."""

from collections.abc import Sequence
from pathlib import Path

from penstock.core.events import Action, Event
from penstock.log.writer import DecisionLog
from penstock.metrics import measure
from penstock.sim.scenario import Scenario, settings_of
from penstock.sim.simulate import Result, run_one

_LINES_HELD = 10_000
_LARGEST_FILE_BYTES = 1 << 40
"""A simulation ends: its log is one file."""


def simulate_logged(scenario: Scenario, path: Path) -> Result:
    """Run the scenario's one policy with its one seed; its clock's zero is 1970 in the log.

    Raises:
        OSError, PenstockError: the file cannot be written.

    """
    (policy,), (seed,) = scenario.policies, scenario.seeds
    classes = scenario.workload.informant(scenario.classes).classes()
    path.unlink(missing_ok=True)
    log = DecisionLog(
        path,
        run=f"simulated-{seed}",
        now=0.0,
        settings=settings_of(scenario.policies[policy], classes, scenario.upstreams),
        max_bytes=_LARGEST_FILE_BYTES,
        flush_every_s=3600.0,
        queue_limit=2 * _LINES_HELD,
        wall=lambda: 0.0,
    )
    held = 0

    def watch(now: float, event: Event, actions: Sequence[Action]) -> None:
        nonlocal held
        log.event(now, event)
        for action in actions:
            log.action(now, action)
        held += 1 + len(actions)
        if held > _LINES_HELD:
            held = 0
            log.flush()

    try:
        run = run_one(scenario, policy, seed, watch=watch)
    finally:
        log.close()
    if log.lost:
        raise OSError(f"{path}: {log.lost} lines could not be written: is the disk full?")
    return Result(policy, seed, measure(run.records))
