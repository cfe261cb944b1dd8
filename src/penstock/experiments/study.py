"""The whole study: grids, worlds, regrets and the live run, as one result to report.

Perturbed worlds have every constant of the provider and the workload drawn anew around its value.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError
from penstock.experiments.bench import Bench, Progress
from penstock.experiments.claims import ClaimVerdict, examinable, needs, verdicts
from penstock.experiments.live import Pair, live_job, run_live
from penstock.experiments.measure import RunOutcome, SimulationJob, Table
from penstock.experiments.paper import Experiment, Paper, read_paper
from penstock.experiments.regret import CellRegret, search_cells
from penstock.experiments.results import Cell, Results
from penstock.sim.calls import unit

_STREAM = 0x574F


class Draws:
    """The numbers of one world: factors in [1 - spread, 1 + spread], one after the other."""

    def __init__(self, world: int, spread: float) -> None:
        self._world = world
        self._spread = spread
        self._taken = 0

    def factor(self) -> float:
        """Return the next factor."""
        self._taken += 1
        return 1.0 + self._spread * (2.0 * unit(self._world, _STREAM, self._taken) - 1.0)


def perturbed(value: Any, draws: Draws, *, fixed: Iterable[str] = ()) -> Any:
    """Return the value with every number in it multiplied by a factor of its own.

    Whole numbers stay whole and at least 1; words and what is named in `fixed` stay.
    """
    if isinstance(value, Mapping):
        return {
            key: inner if key in fixed else perturbed(inner, draws, fixed=fixed)
            for key, inner in sorted(value.items())
        }
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    moved = value * draws.factor()
    return max(1, round(moved)) if isinstance(value, int) else moved


def world_of(base: Table, world: int, settings: Table) -> dict[str, Any]:
    """Return base.toml as it is in a world.

    Args:
        base: base.toml.
        world: its number, from 1; the same number is always the same world.
        settings: worlds.toml: `spread`, and in `fixed` the names of what is no constant of a
            provider or a workload (what an experiment varies by itself, such as the noise).

    """
    draws = Draws(world, settings["spread"])
    fixed = tuple(settings["fixed"])
    moved = {
        name: perturbed(base[name], draws, fixed=fixed)
        for name in ("provider", "workload", "mixes", "regimes")
    }
    mixes = {name: _to_one(mix) for name, mix in moved["mixes"].items()}
    return {**base, **moved, "mixes": mixes}


def _to_one(mix: Mapping[str, float]) -> dict[str, float]:
    """Return the shares scaled to a sum of 1 again, which keeps their drawn proportions."""
    total = math.fsum(mix.values())
    return {bucket: share / total for bucket, share in mix.items()}


def narrowed(
    experiments: Mapping[str, Experiment], wanted: Mapping[str, set[str]]
) -> dict[str, Experiment]:
    """Return the experiments with only the variants that are wanted."""
    return {
        name: replace(
            experiment,
            variants=tuple(v for v in experiment.variants if v.name in wanted[name]),
        )
        for name, experiment in experiments.items()
        if name in wanted
    }


def seeds_of(world: int, count: int) -> list[int]:
    """Return the seeds of a world: its own, so that worlds differ in their draws too."""
    return [1000 * world + number for number in range(1, count + 1)]


def with_seeds(
    jobs: Mapping[Any, list[SimulationJob]], seeds: list[int]
) -> dict[Any, list[SimulationJob]]:
    """Return the jobs with these seeds in place of their own."""
    return {
        cell: [replace(job, seed=seed) for job, seed in zip(runs, seeds, strict=True)]
        for cell, runs in jobs.items()
    }


REGRET = "regret"
LIVE = "live"

Plan = Mapping[tuple[str, str, str], list[SimulationJob]]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be reproduced.

    Attributes:
        names: experiments; empty for all. The live run takes as long as its scenario lasts.
        seeds: for each cell; None for base.toml's.
        worlds: how many perturbed worlds.

    """

    names: tuple[str, ...] = ()
    seeds: int | None = None
    worlds: int = 0


@dataclass(frozen=True, slots=True)
class Study:
    """All that was found."""

    paper: Paper
    results: Results
    verdicts: tuple[ClaimVerdict, ...]
    worlds: int = 0
    regrets: tuple[CellRegret, ...] = ()
    live: tuple[Pair, ...] = ()
    seeds: int = 5

    @property
    def note(self) -> str:
        """What must be said beside the claims; empty if they had all the seeds that they need."""
        needed = seeds_needed(self.paper)
        if self.seeds >= needed:
            return ""
        return f"{self.seeds} seed{'s' * (self.seeds > 1)} of {needed}: too few to decide"


def make_study(directory: Path, wish: Wish, bench: Bench) -> Study:
    """Run what the wish names and return what was found.

    Raises:
        ConfigError: a name is not an experiment, or a specification cannot be.

    """
    paper = read_paper(directory)
    seeds = wish.seeds or seeds_needed(paper)
    grids = chosen(paper, wish.names)
    live: tuple[Pair, ...] = ()
    if not wish.names or LIVE in wish.names:
        live = run_lives(paper, bench)  # first: nothing else may use the machine meanwhile
    results = run_grids(paper, grids, seeds, bench)
    worlds = run_worlds(directory, results, paper, wish.worlds, bench)
    regrets: tuple[CellRegret, ...] = ()
    if not wish.names or REGRET in wish.names:
        regrets = search_cells(paper, seeds, bench)
    return Study(
        paper,
        results,
        tuple(verdicts(results, paper.published, worlds, decided=seeds >= seeds_needed(paper))),
        wish.worlds,
        regrets,
        live,
        seeds,
    )


def seeds_needed(paper: Paper) -> int:
    """Return how many seeds a claim is decided on."""
    return int(paper.base["statistics"]["seeds"])


def chosen(paper: Paper, names: Sequence[str]) -> list[str]:
    """Return the grid experiments that are named, all if none is.

    Raises:
        ConfigError: a name is not known.

    """
    known = [*paper.experiments, *(n for n in paper.special if n != "worlds")]
    for name in names:
        if name not in known:
            raise ConfigError(f"{name!r} is not an experiment: choose from {', '.join(known)}")
    return [name for name in paper.experiments if not names or name in names]


def run_grids(paper: Paper, names: Sequence[str], seeds: int, bench: Bench) -> Results:
    """Run grid experiments and return their cells."""
    experiments = {name: paper.experiments[name] for name in names}
    plan = {
        (name, *place): jobs
        for name, experiment in experiments.items()
        for place, jobs in experiment.jobs(seeds).items()
    }
    runs = bench.run(_all_jobs(plan), label="experiments")
    return Results(experiments, _cells(plan, runs))


def run_lives(paper: Paper, bench: Bench) -> tuple[Pair, ...]:
    """Run live.toml's policies through the sidecar and on the virtual clock."""
    settings = paper.special[LIVE]
    jobs = {policy: live_job(settings, policy) for policy in settings["policies"]}
    names = {f"live {job.text()}": policy for policy, job in jobs.items()}

    def make(missing: Sequence[str], progress: Progress) -> list[RunOutcome]:
        return run_live(settings, [names[name] for name in missing], progress)

    lives = bench.all_of(list(names), make)
    simulated = bench.run(jobs.values(), label="live: simulated")
    return tuple(
        Pair(policy, live, simulated[jobs[policy].text()])
        for policy, live in zip(jobs, lives, strict=True)
    )


def run_worlds(
    directory: Path, results: Results, paper: Paper, count: int, bench: Bench
) -> list[Results]:
    """Run what the claims look at in so many perturbed worlds, all of them together."""
    settings = paper.special["worlds"]
    wanted = needs(examinable(results))
    there: list[tuple[Mapping[str, Experiment], Plan]] = []
    for world in range(1, count + 1):
        perturbed = read_paper(directory, world_of(paper.base, world, settings))
        experiments = narrowed(perturbed.experiments, wanted)
        seeds = seeds_of(world, int(settings["seeds"]))
        plan = {
            (name, *place): jobs
            for name, experiment in experiments.items()
            for place, jobs in with_seeds(experiment.jobs(len(seeds)), seeds).items()
        }
        there.append((experiments, plan))
    jobs = [job for _, plan in there for job in _all_jobs(plan)]
    runs = bench.run(jobs, label="perturbed worlds")
    return [Results(experiments, _cells(plan, runs)) for experiments, plan in there]


def _all_jobs(plan: Plan) -> list[SimulationJob]:
    return [job for jobs in plan.values() for job in jobs]


def _cells(plan: Plan, runs: Mapping[str, RunOutcome]) -> dict[tuple[str, str, str], Cell]:
    return {place: Cell(tuple(runs[job.text()] for job in jobs)) for place, jobs in plan.items()}
