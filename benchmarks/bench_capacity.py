"""How well each capacity policy finds a hidden capacity, beside a window that knows it.

    python benchmarks/bench_capacity.py [--seeds 3] [--requests 400] [--policies posterior,aimd]

Every cell (provider model x capacity x mix x load) runs the default stack with the window fixed at
the true capacity, and with each policy. A cell is kept when deadline satisfaction is at least 0.97
times that of the fixed window, and short P95 at most 1.3 times (2 times below 8 places). Nothing
is tuned by cell. Then the capacity halves or doubles in mid-run, and what arrives from 60 s later
on is compared with a window fixed at the new capacity.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.metrics import measure
from penstock.sim.scenario import read_scenario
from penstock.sim.simulate import run_one

MODELS = ("slots", "shared", "thrash", "linear")
CAPACITIES = (4, 8, 32, 128)
LOADS = (0.8, 1.0, 1.3)
MIXES = {
    "balanced": {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1},
    "heavy": {"short": 0.2, "medium": 0.2, "long": 0.3, "xlong": 0.3},
}
BOUNDS = {"short": (16, 64), "medium": (65, 256), "long": (257, 1024), "xlong": (1025, 4096)}
POLICIES = ("posterior", "aimd", "gradient2", "vegas")
LEAST_SATISFACTION, MOST_P95, SMALL, MOST_P95_SMALL = 0.97, 1.3, 8, 2.0
CHANGES = ((8, 4), (32, 16), (128, 64), (4, 8), (16, 32), (32, 64))
CHANGE_S, GRACE_S, AFTER_S = 60.0, 60.0, 90.0
CHANGE_LOAD = 1.0


@dataclass(frozen=True)
class Cell:
    """One world."""

    model: str
    capacity: int
    mix: str
    load: float


@dataclass(frozen=True)
class Job:
    """One cell with one policy, and how to run it."""

    cell: Cell
    policy: str
    seeds: int
    requests: int
    then: int = 0


Outcome = tuple[float, float]
"""Deadline satisfaction and short P95 in seconds."""


def mean_service_s(model: str, mix: str) -> float:
    """Return the mean service time of a mix, in seconds."""
    tokens = sum(
        share * (BOUNDS[name][1] - BOUNDS[name][0]) / math.log(BOUNDS[name][1] / BOUNDS[name][0])
        for name, share in MIXES[mix].items()
    )
    return 0.15 + tokens * (0.003 if model == "linear" else 0.005)


def document(job: Job, seed: int) -> dict[str, Any]:
    """Return the scenario of one run."""
    cell = job.cell
    known = job.then or cell.capacity
    name = "slots" if cell.model == "slots" else "capacity"
    provider: dict[str, Any] = {"model": cell.model, name: cell.capacity}
    rate = cell.load * min(known, cell.capacity) / mean_service_s(cell.model, cell.mix)
    requests = job.requests
    if job.then:
        provider["changes"] = [{"at_s": CHANGE_S, name: job.then}]
        requests = int(rate * (CHANGE_S + GRACE_S + AFTER_S))
    capacity = {"kind": "fixed", "window": known} if job.policy == "fixed" else {"kind": job.policy}
    return {
        "seeds": [seed],
        "provider": provider,
        "workload": {
            "requests": requests,
            "rate_per_s": rate,
            "mix": MIXES[cell.mix],
            "deadline_s": {"short": 1.0, "medium": 4.0, "long": 15.0, "xlong": 60.0},
        },
        "policies": {"it": {"capacity": capacity}},
    }


def measured(job: Job) -> Outcome:
    """Return the means over the seeds."""
    satisfaction = p95_s = 0.0
    for seed in range(1, job.seeds + 1):
        records = run_one(read_scenario(document(job, seed)), "it", seed).records
        if job.then:
            records = [r for r in records if r.arrived_at >= CHANGE_S + GRACE_S]
        metrics = measure(records)
        satisfaction += metrics.deadline_satisfaction / job.seeds
        p95_s += (metrics.short_p95_s or math.inf) / job.seeds
    return satisfaction, p95_s


def is_kept(outcome: Outcome, fixed: Outcome, capacity: int) -> tuple[bool, bool]:
    """Say whether satisfaction and short P95 are within their bands."""
    most = MOST_P95_SMALL if capacity < SMALL else MOST_P95
    return outcome[0] >= LEAST_SATISFACTION * fixed[0], outcome[1] <= most * fixed[1]


def tables(jobs: list[Job], outcomes: list[Outcome], policies: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table with a row a world, then one with totals."""
    found = dict(zip(jobs, outcomes, strict=True))
    totals = {policy: [0, 0, 0, math.inf, 0.0] for policy in policies}
    head = "| provider | capacity | mix | load | known | " + " | ".join(policies) + " |"
    yield head
    yield "|" + "---|" * (5 + len(policies))
    for job in jobs:
        if job.policy != "fixed":
            continue
        cell, fixed = job.cell, found[job]
        capacity = job.then or cell.capacity
        named = f"{cell.capacity} → {job.then}" if job.then else f"{cell.capacity}"
        line = f"| {cell.model} | {named} | {cell.mix} | {cell.load:g} | {show(fixed)} |"
        for policy in policies:
            twin = Job(cell, policy, job.seeds, job.requests, job.then)
            outcome = found[twin]
            served, quick = is_kept(outcome, fixed, capacity)
            ratio = outcome[0] / max(1e-9, fixed[0])
            total = totals[policy]
            total[0] += 1
            total[1] += not served
            total[2] += not quick
            total[3] = min(total[3], ratio)
            total[4] += ratio
            line += f" {show(outcome)}{'' if served else ' D'}{'' if quick else ' P'} |"
        yield line
    yield ""
    yield "| policy | worlds | D missed | P missed | worst ratio | mean ratio |"
    yield "|---|---|---|---|---|---|"
    for policy, (worlds, missed, slow, worst, ratios) in totals.items():
        yield f"| {policy} | {worlds} | {missed} | {slow} | {worst:.3f} | {ratios / worlds:.3f} |"


def show(outcome: Outcome) -> str:
    """Return satisfaction and short P95 in a table's words."""
    return f"{outcome[0]:.3f} {outcome[1]:.2f}"


def main() -> None:
    """Run both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--policies", default=",".join(POLICIES), help="with commas")
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    policies = args.policies.split(",")
    everyone = ("fixed", *policies)
    still = [
        Job(Cell(model, capacity, mix, load), policy, args.seeds, args.requests)
        for model in MODELS
        for capacity in CAPACITIES
        for mix in MIXES
        for load in LOADS
        for policy in everyone
    ]
    moving = [
        Job(Cell(model, before, mix, CHANGE_LOAD), policy, args.seeds, args.requests, after)
        for model in ("slots", "thrash")
        for before, after in CHANGES
        for mix in MIXES
        for policy in everyone
    ]
    lines = []
    with ProcessPoolExecutor(args.processes) as pool:
        for title, jobs in (
            ("Capacity that does not move", still),
            ("Capacity that halves or doubles: what arrives from 60 s after the change on", moving),
        ):
            outcomes = list(pool.map(measured, jobs, chunksize=4))
            lines += [f"### {title}", "", *tables(jobs, outcomes, policies), ""]
    text = "\n".join(lines)
    print(text)
    if args.markdown:
        args.markdown.write_text(text)


if __name__ == "__main__":
    main()
