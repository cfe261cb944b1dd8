"""Perturbed worlds: every constant of the provider and the workload drawn anew around its value."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from penstock.experiments.job import SimulationJob, Table
from penstock.experiments.paper import Experiment
from penstock.sim.chance import unit

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
