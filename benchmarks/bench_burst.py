"""Everything at once, to a provider that nobody knows yet: penstock, a known window, direct calls.

    python benchmarks/bench_burst.py [--seeds 3] [--processes 2]

Two tables, provider model x capacity a row, all simulated. *Batch*: 600 calls with nothing due,
and how long the last one took; three mixes. *Crowd*: 40, 120 and 400 calls of the balanced and
the heavy mix with the usual deadlines, and the share that was in time. A *known* window is fixed
at the true capacity; direct calls are sent all at once.
"""

import argparse
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from penstock.metrics import measure
from penstock.sim.scenario import read_scenario
from penstock.sim.simulate import run_one

MODELS = ("slots", "shared", "thrash", "linear")
CAPACITIES = (4, 8, 32)
BALANCED = {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1}
HEAVY = {"short": 0.2, "medium": 0.2, "long": 0.3, "xlong": 0.3}
DEADLINE_S = {"short": 1.0, "medium": 4.0, "long": 15.0, "xlong": 60.0}
NOTHING_DUE_S = 100_000.0
BATCH_CALLS, CROWD_CALLS = 600, (40, 120, 400)
BATCHES = {"medium": {"medium": 1.0}, "long": {"long": 1.0}, "balanced": BALANCED}
AT_ONCE_PER_S = 100_000.0
POLICIES = ("known", "posterior", "direct")
DIRECT = {
    "allocation": "fifo",
    "ordering": "fifo",
    "overload": "always_admit",
    "capacity": {"kind": "unlimited"},
}


@dataclass(frozen=True)
class Job:
    """One run."""

    model: str
    capacity: int
    mix: tuple[tuple[str, float], ...]
    calls: int
    due: bool
    policy: str
    seed: int


def run(job: Job) -> tuple[float, float]:
    """Return deadline satisfaction and makespan in seconds."""
    policies: dict[str, Any] = {
        "known": {"capacity": {"kind": "fixed", "window": job.capacity}},
        "posterior": {},
        "direct": DIRECT,
    }
    document = {
        "seeds": [job.seed],
        "provider": {
            "model": job.model,
            "slots" if job.model == "slots" else "capacity": job.capacity,
        },
        "workload": {
            "requests": job.calls,
            "rate_per_s": AT_ONCE_PER_S,
            "mix": dict(job.mix),
            "deadline_s": DEADLINE_S if job.due else dict.fromkeys(DEADLINE_S, NOTHING_DUE_S),
        },
        "policies": {"it": policies[job.policy]},
    }
    metrics = measure(run_one(read_scenario(document), "it", job.seed).records)
    return metrics.deadline_satisfaction, metrics.makespan_s or 0.0


def mean_of(results: dict[Job, tuple[float, float]], which: int, jobs: Iterable[Job]) -> float:
    """Return the mean of one of the two figures over some runs."""
    return fmean(results[job][which] for job in jobs)


def main() -> None:
    """Run both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    worlds = [(model, capacity) for model in MODELS for capacity in CAPACITIES]
    seeds = range(1, args.seeds + 1)

    def batch(world: tuple[str, int], mix: str, policy: str) -> list[Job]:
        parts = tuple(BATCHES[mix].items())
        return [Job(*world, parts, BATCH_CALLS, False, policy, seed) for seed in seeds]

    def crowd(world: tuple[str, int], policy: str) -> list[Job]:
        return [
            Job(*world, tuple(mix.items()), calls, True, policy, seed)
            for mix in (BALANCED, HEAVY)
            for calls in CROWD_CALLS
            for seed in seeds
        ]

    batches = [j for w in worlds for m in BATCHES for p in POLICIES for j in batch(w, m, p)]
    crowds = [j for w in worlds for p in POLICIES for j in crowd(w, p)]
    with ProcessPoolExecutor(args.processes) as pool:
        jobs = batches + crowds
        results = dict(zip(jobs, pool.map(run, jobs, chunksize=8), strict=True))

    print("### Batch: seconds for the last of 600 calls (known, posterior, direct)\n")
    print("| provider | capacity | " + " | ".join(BATCHES) + " |\n" + "|---" * 5 + "|")
    for world in worlds:
        cells = (
            " ".join(f"{mean_of(results, 1, batch(world, mix, p)):.0f}" for p in POLICIES)
            for mix in BATCHES
        )
        print(f"| {world[0]} | {world[1]} | " + " | ".join(cells) + " |")
    print("\n### Crowd: deadline satisfaction, seconds for the last call\n")
    print("| provider | capacity | " + " | ".join(POLICIES) + " |\n" + "|---" * 5 + "|")
    for world in worlds:
        cells = (
            f"{mean_of(results, 0, crowd(world, p)):.3f} {mean_of(results, 1, crowd(world, p)):.0f}"
            for p in POLICIES
        )
        print(f"| {world[0]} | {world[1]} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
