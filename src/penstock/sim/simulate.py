"""Runs scenarios: every policy with every seed, each run on its own; of one it leaves a log."""

import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock.core.events import Action, Event
from penstock.log.writer import DecisionLog
from penstock.metrics import RunMetrics, measure
from penstock.policies.registry import build_scheduler
from penstock.sim.engine import Engine, Run, Watch
from penstock.sim.scenario import Scenario, settings_of


@dataclass(frozen=True, slots=True)
class Result:
    """One policy's run with one seed."""

    policy: str
    seed: int
    metrics: RunMetrics

    def row(self) -> dict[str, Any]:
        """Return the JSON object of the interface."""
        figures = asdict(self.metrics)
        del figures["submitted"]
        return {"policy": self.policy, "seed": self.seed, **figures}


def run_one(scenario: Scenario, policy: str, seed: int, *, watch: Watch | None = None) -> Run:
    """Run one policy with one seed and return everything that happened.

    Raises:
        KeyError: the scenario has no policy of that name.

    """
    workload = scenario.workload.build(seed, scenario.classes)
    plan = scenario.policies[policy]
    scheduler = build_scheduler(settings_of(plan, workload.classes, scenario.upstreams))
    providers = scenario.build_providers(seed)
    engine = Engine(scheduler, providers, habits=scenario.workload.habits(), seed=seed, watch=watch)
    with without_cycles():
        run = engine.run(workload)
    for fault in scheduler.faults:  # it went on, as in production; these figures are void
        raise fault
    return run


@contextmanager
def without_cycles() -> Iterator[None]:
    """Look for no garbage in cycles meanwhile: a run makes none, and looking costs 5 % of it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def measure_one(scenario: Scenario, policy: str, seed: int) -> Result:
    """Run one policy with one seed and return its metrics."""
    return Result(policy, seed, measure(run_one(scenario, policy, seed).records))


def simulate(
    scenario: Scenario,
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Run every policy with every seed; the order and the bytes do not depend on `processes`.

    Args:
        scenario: what to run.
        processes: how many to use; 1 stays in this one.
        progress: told (done, of how many) after each run.

    """
    jobs = [(policy, seed) for policy in scenario.policies for seed in scenario.seeds]
    results: list[Result] = []
    for result in _results(scenario, jobs, processes):
        results.append(result)
        if progress is not None:
            progress(len(results), len(jobs))
    return results


def _results(scenario: Scenario, jobs: list[tuple[str, int]], processes: int) -> Iterator[Result]:
    if processes <= 1 or len(jobs) <= 1:
        for policy, seed in jobs:
            yield measure_one(scenario, policy, seed)
        return
    with ProcessPoolExecutor(min(processes, len(jobs))) as pool:
        futures = [pool.submit(measure_one, scenario, policy, seed) for policy, seed in jobs]
        for future in futures:
            yield future.result()


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
