"""One stack, every world: how much better a stack chosen in hindsight would have been."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from penstock.experiments.bench import Bench
from penstock.experiments.measure import RunOutcome, SimulationJob, Table, overlay
from penstock.experiments.paper import Paper, base_regimes
from penstock.experiments.results import average

_LAYERS = ("allocation", "ordering", "overload", "capacity")
_ROOMY = 256.0
"""A window that never binds, where a window of tokens does the work."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """The stacks that regret.toml's `search` table spans."""

    table: Table

    def combinations(self) -> list[dict[str, Any]]:
        """Return every combination of the three upper layers, over the default window policy."""
        return [
            {"allocation": allocation, "ordering": ordering, "overload": overload}
            for allocation, ordering, overload in product(
                self.table["allocations"], self.table["orderings"], self.table["overloads"]
            )
        ]

    def windows(self, policies: Iterable[Table]) -> list[dict[str, Any]]:
        """Return the policies with each of the fixed windows, of requests and of tokens."""
        capacities: list[dict[str, Any]] = [
            {"kind": "fixed", "window": window} for window in self.table["windows"]
        ]
        capacities += [
            {"kind": "fixed", "window": _ROOMY, "window_tokens": tokens}
            for tokens in self.table["window_tokens"]
        ]
        return [{**policy, "capacity": capacity} for policy in policies for capacity in capacities]

    def parameters(self, policies: Iterable[Table]) -> list[dict[str, Any]]:
        """Return the policies with each option of each of their layers, one at a time."""
        return [other for policy in policies for other in self._with_options(policy)]

    def _with_options(self, policy: Table) -> Iterator[dict[str, Any]]:
        for layer in _LAYERS[:-1]:
            kind = kind_of(policy, layer)
            for options in self.table["options"].get(kind, ()):
                yield {**policy, layer: {"kind": kind, **options}}


def kind_of(policy: Table, layer: str) -> str | None:
    """Return the name of a layer's policy, or None where it is the default one."""
    spec = policy.get(layer)
    return str(spec["kind"]) if isinstance(spec, Mapping) else spec


def stack_name(policy: Table) -> str:
    """Return a short name that tells one stack from any other."""
    if not policy:
        return "default"
    return " / ".join(_spec_text(policy[layer]) for layer in _LAYERS if layer in policy)


def _spec_text(spec: Any) -> str:
    if not isinstance(spec, Mapping):
        return str(spec)
    options = {name: value for name, value in spec.items() if name != "kind"}
    if options.get("window") == _ROOMY and "window_tokens" in options:
        del options["window"]
    if not options:
        return str(spec["kind"])
    listed = ", ".join(f"{name} {_value(value)}" for name, value in options.items())
    return f"{spec['kind']} ({listed})"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else json.dumps(value)


NEAR_BEST = 0.03
"""Stacks that lack more deadline satisfaction than this do not count for the best short P95."""


UNLIMITED = {"kind": "unlimited"}


@dataclass(frozen=True, slots=True)
class Scored:
    """A stack's means over the seeds it was run with."""

    name: str
    policy: Table
    deadline_satisfaction: float
    short_p95_s: float


@dataclass(frozen=True, slots=True)
class CellRegret:
    """What the default stack lacks in one regime at one provider.

    Attributes:
        ours: the default stack. direct: no stack at all.
        best: the stack with the most deadlines met (the lower short P95 breaks ties).
        fastest: the stack with the least short P95 among those within 3 points of the best.
        tried: how many stacks were tried.

    """

    regime: str
    provider: str
    ours: Scored
    direct: Scored
    best: Scored
    fastest: Scored
    tried: int

    @property
    def deadline_regret(self) -> float:
        """Deadline satisfaction that the default stack lacks, at least 0."""
        return max(0.0, self.best.deadline_satisfaction - self.ours.deadline_satisfaction)

    @property
    def short_p95_ratio(self) -> float:
        """Short P95 of the default stack over the least one."""
        return self.ours.short_p95_s / self.fastest.short_p95_s

    def holds(self, limits: Table) -> bool:
        """Return whether both regrets are within what regret.toml allows."""
        return bool(
            self.deadline_regret <= limits["deadline_regret_max"]
            and self.short_p95_ratio <= limits["short_p95_ratio_max"]
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """How a stack is tried: with which seeds, and what is laid over the cell's scenario."""

    seeds: tuple[int, ...]
    scenario: Table = field(default_factory=dict)


@dataclass(slots=True)
class _Search:
    """The search of one cell, in rounds; each round is a list of stacks to screen."""

    regime: str
    provider: str
    scenario: Table
    stacks: Stacks
    screened: dict[str, Scored] = field(default_factory=dict)

    def jobs(self, policies: Sequence[Table], trial: _Candidate) -> list[SimulationJob]:
        scenario = overlay(self.scenario, trial.scenario)
        return [
            SimulationJob(scenario, policy, s, detail=False)
            for policy in policies
            for s in trial.seeds
        ]

    def scored(self, policy: Table, trial: _Candidate, runs: Mapping[str, RunOutcome]) -> Scored:
        found = [runs[job.text()].figures for job in self.jobs([policy], trial)]
        p95_s = average([figures["short_p95_s"] for figures in found])
        return Scored(
            stack_name(policy),
            policy,
            average([figures["deadline_satisfaction"] for figures in found]),
            math.inf if math.isnan(p95_s) else p95_s,
        )

    def kept(self, setting: str) -> list[Table]:
        """Return the policies of the best stacks, as many as the setting says, direct calls not."""
        names = int(self.stacks.table[setting])
        return [s.policy for s in self.best(names) if s.policy.get("capacity") != UNLIMITED]

    def best(self, count: int) -> list[Scored]:
        """Return the screened stacks that are best by either objective, half of each."""
        by_deadlines = sorted(self.screened.values(), key=_by_deadlines)
        by_p95 = sorted(near_best(by_deadlines), key=_by_p95)
        merged = {s.name: s for s in by_deadlines[: count - count // 2]}
        for one in by_p95:
            if len(merged) >= count:
                break
            merged[one.name] = one
        return list(merged.values())


def search_cells(paper: Paper, seeds: int, bench: Bench) -> tuple[CellRegret, ...]:
    """Search every cell of regret.toml and return the default stack's regrets.

    All cells go through the rounds together, so that the workers never wait for one cell.
    """
    table = paper.special["regret"]
    searches = list(_searches(paper, table))
    settings = table["search"]
    screen = _Candidate((1,), {"workload": {"requests": int(settings["screen_requests"])}})
    rounds: tuple[tuple[str, Callable[[_Search], Sequence[Table]]], ...] = (
        ("combinations", lambda s: [table["direct"], *s.stacks.combinations()]),
        ("windows", lambda s: s.stacks.windows(s.kept("combinations_kept"))),
        ("parameters", lambda s: s.stacks.parameters(s.kept("stacks_kept"))),
    )
    for label, propose in rounds:
        plans = [(s, propose(s)) for s in searches]
        jobs = [job for s, policies in plans for job in s.jobs(policies, screen)]
        runs = bench.run(jobs, label=f"regret: {label}")
        for search, policies in plans:
            for policy in policies:
                scored = search.scored(policy, screen, runs)
                search.screened.setdefault(scored.name, scored)
    return _finals(searches, table, _Candidate(tuple(range(1, seeds + 1))), bench)


def _searches(paper: Paper, table: Table) -> Iterator[_Search]:
    regimes = base_regimes(paper.base)
    stacks = Stacks(table["search"])
    for provider, cell in table["cells"].items():
        for regime, rate in cell["rates"].items():
            workload = overlay(regimes[regime].scenario["workload"], {"rate_per_s": rate})
            scenario: dict[str, Any] = {"provider": cell["provider"], "workload": workload}
            yield _Search(regime, provider, scenario, stacks)


def _finals(
    searches: Sequence[_Search], table: Table, trial: _Candidate, bench: Bench
) -> tuple[CellRegret, ...]:
    """Return each cell's regret, with its best stacks and the fixed ones run once more."""
    count = 2 * int(table["search"]["finalists"])
    always = [{}, table["direct"], *table["references"]]
    plans = [(s, [*always, *(one.policy for one in s.best(count))]) for s in searches]
    jobs = [job for s, policies in plans for job in s.jobs(policies, trial)]
    runs = bench.run(jobs, label="regret: finalists")
    return tuple(
        _regret(search, [search.scored(policy, trial, runs) for policy in policies])
        for search, policies in plans
    )


def _regret(search: _Search, finalists: Sequence[Scored]) -> CellRegret:
    ours, direct = finalists[:2]
    ranked = sorted(finalists, key=_by_deadlines)
    return CellRegret(
        search.regime,
        search.provider,
        ours,
        direct,
        best=ranked[0],
        fastest=min(near_best(ranked), key=_by_p95),
        tried=len(search.screened),
    )


def near_best(by_deadlines: Sequence[Scored]) -> list[Scored]:
    """Return the stacks within 3 points of the first one's deadline satisfaction."""
    least = by_deadlines[0].deadline_satisfaction - NEAR_BEST
    return [s for s in by_deadlines if s.deadline_satisfaction >= least]


def _by_deadlines(scored: Scored) -> tuple[float, float, str]:
    return (-scored.deadline_satisfaction, scored.short_p95_s, scored.name)


def _by_p95(scored: Scored) -> tuple[float, float, str]:
    return (scored.short_p95_s, -scored.deadline_satisfaction, scored.name)
