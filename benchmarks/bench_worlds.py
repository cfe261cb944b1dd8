"""Worlds that nobody chose: how near the default stack comes to one that knows the capacity.

    python benchmarks/bench_worlds.py [--first 0] [--worlds 100] [--seeds 4] [--markdown FILE]

World k draws everything from the seed k: the provider's model, its capacity (2 to 64), speed and
other parameters, load 0.5 to 1.4, mix, arrivals, deadlines, information, noise of the priors, and
whether clients stream. The default stack is compared with itself behind a window fixed at the true
capacity; where the provider is `linear`, with the best of that, one 1.3 times and one twice as
wide, and direct calls. Worlds in which even that meets fewer than 20 % of deadlines are left out.

To see what a change does, run it before and after. To see what it is worth, run it on worlds that
nobody has looked at.
"""

import argparse
import math
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.metrics import measure
from penstock.sim.scenario import read_scenario
from penstock.sim.simulate import run_one

BOUNDS = {"short": (16, 64), "medium": (65, 256), "long": (257, 1024), "xlong": (1025, 4096)}
DEADLINE_S = {"short": 1.0, "medium": 4.0, "long": 15.0, "xlong": 60.0}
MODELS = ("slots", "slots", "shared", "thrash", "linear", "serial")
ARRIVALS = ("poisson", "poisson", "gamma", "bursts", "diurnal")
REQUESTS = 400
DIRECT = {
    "allocation": "fifo",
    "ordering": "fifo",
    "overload": "always_admit",
    "capacity": {"kind": "unlimited"},
}
LEAST_SATISFACTION, MOST_P95, SMALL, MOST_P95_SMALL = 0.97, 1.3, 8, 2.0
TINY = 4
LEAST_KNOWN = 0.2


@dataclass(frozen=True)
class World:
    """A provider, a workload, and the capacity that nobody is told."""

    number: int
    provider: dict[str, Any]
    workload: dict[str, Any]
    capacity: int
    load: float

    @property
    def group(self) -> str:
        """Return what it is counted with."""
        if self.provider["model"] == "linear":
            return "linear"
        return f"below {TINY} places" if self.capacity < TINY else f"{TINY} places and more"


def draw(number: int) -> World:
    """Return world `number`."""
    dice = random.Random(f"world {number}")
    model = dice.choice(MODELS)
    capacity = 1 if model == "serial" else round(math.exp(dice.uniform(*_logs(2, 64))))
    tokens_per_s = math.exp(dice.uniform(*_logs(40, 300)))
    first_s = math.exp(dice.uniform(*_logs(0.05, 0.8)))
    provider: dict[str, Any] = {"model": model, "tokens_per_s": tokens_per_s, "ttft_s": first_s}
    slower = 1.0
    if model == "slots":
        provider |= {"slots": capacity, "beta": dice.choice((0.0, 0.0, 0.02, 0.05))}
        slower += provider["beta"] * capacity
    elif model in ("shared", "thrash"):
        provider["capacity"] = capacity
        if model == "thrash":
            provider["theta"] = dice.choice((0.25, 0.5, 1.0))
    elif model == "linear":
        provider = {"model": model, "base_s": first_s, "s_per_token": 1.0 / tokens_per_s}
        provider |= {"capacity": capacity, "gamma": dice.choice((0.2, 0.5, 1.0))}
        provider["jitter"] = dice.choice((0.0, 0.03, 0.1))
    load = dice.choice((0.5, 0.7, 0.85, 1.0, 1.2, 1.4))
    s_per_token = slower / tokens_per_s
    return World(
        number, provider, _workload(dice, load * capacity, first_s, s_per_token), capacity, load
    )


def _workload(
    dice: random.Random, in_service: float, first_s: float, s_per_token: float
) -> dict[str, Any]:
    shares = [0.05 + dice.gammavariate(1.5, 1.0) for _ in BOUNDS]
    mix = {name: share / sum(shares) for name, share in zip(BOUNDS, shares, strict=True)}
    tokens = sum(
        share * (BOUNDS[name][1] - BOUNDS[name][0]) / math.log(BOUNDS[name][1] / BOUNDS[name][0])
        for name, share in mix.items()
    )
    rate = in_service / (first_s + tokens * s_per_token)
    slack = dice.choice((1.3, 2.0, 3.0))
    deadline_s = {
        name: max(due_s, slack * (first_s + BOUNDS[name][1] * s_per_token))
        for name, due_s in DEADLINE_S.items()
    }
    arrivals = dice.choice(ARRIVALS)
    span_s = REQUESTS / rate
    shape: dict[str, float] = {}
    if arrivals == "gamma":
        shape = {"cv": dice.choice((2.0, 3.0))}
    elif arrivals == "bursts":
        on_s = span_s / dice.uniform(6.0, 15.0)
        shape = {"on_s": on_s, "off_s": on_s * dice.choice((0.5, 1.0, 2.0))}
    elif arrivals == "diurnal":
        shape = {"period_s": span_s / 2.0, "amplitude": 0.8}
    return {
        "requests": REQUESTS,
        "rate_per_s": rate,
        "mix": mix,
        "deadline_s": deadline_s,
        "arrivals": arrivals,
        "information": dice.choice(("coarse", "coarse", "coarse", "oracle")),
        "noise": dice.choice((0.0, 0.0, 0.2, 0.5)),
        "stream": dice.random() < 0.5,
        **shape,
    }


def _logs(low: float, high: float) -> tuple[float, float]:
    return math.log(low), math.log(high)


Outcome = tuple[float, float]
"""Deadline satisfaction and short P95 in seconds."""


def run(world: World, stack: dict[str, Any], seeds: int) -> Outcome:
    """Return the means over the seeds."""
    satisfaction = p95_s = 0.0
    for seed in range(1, seeds + 1):
        document = {"seeds": [seed], "provider": world.provider, "workload": world.workload}
        scenario = read_scenario(document | {"policies": {"it": stack}})
        metrics = measure(run_one(scenario, "it", seed).records)
        satisfaction += metrics.deadline_satisfaction / seeds
        p95_s += (metrics.short_p95_s or 0.0) / seeds
    return satisfaction, p95_s


def both(job: tuple[int, int]) -> tuple[Outcome, Outcome]:
    """Return what a stack that knows reaches, and the default one."""
    number, seeds = job
    world = draw(number)
    windows = [world.capacity]
    stacks = []
    if world.provider["model"] == "linear":
        windows += [math.ceil(1.3 * world.capacity), 2 * world.capacity]
        stacks = [DIRECT]
    stacks += [{"capacity": {"kind": "fixed", "window": window}} for window in windows]
    known = max(
        (run(world, stack, seeds) for stack in stacks), key=lambda o: (round(o[0], 2), -o[1])
    )
    return known, run(world, {}, seeds)


def tables(worlds: list[World], outcomes: list[tuple[Outcome, Outcome]]) -> Iterator[str]:
    """Yield a row for each world that is out of its band, then the totals."""
    totals: dict[str, list[tuple[float, float, bool, bool]]] = {}
    yield "| world | provider | capacity | load | arrivals | streamed | known | default | missed |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for world, (known, ours) in zip(worlds, outcomes, strict=True):
        if known[0] < LEAST_KNOWN or not known[1]:
            continue
        served, quick = ours[0] / known[0], ours[1] / known[1]
        most = MOST_P95_SMALL if world.capacity < SMALL else MOST_P95
        late, slow = served < LEAST_SATISFACTION, quick > most
        totals.setdefault(world.group, []).append((served, quick, late, slow))
        if late or slow:
            yield (
                f"| {world.number} | {world.provider['model']} | {world.capacity} "
                f"| {world.load:g} | {world.workload['arrivals']} "
                f"| {'yes' if world.workload['stream'] else 'no'} "
                f"| {known[0]:.3f} {known[1]:.2f} | {ours[0]:.3f} {ours[1]:.2f} "
                f"| {'D' if late else ''}{' P' if slow else ''} |"
            )
    yield ""
    yield "| worlds | number | D missed | P missed | mean satisfaction ratio | mean P95 ratio |"
    yield "|---|---|---|---|---|---|"
    for group, rows in sorted(totals.items()):
        served = sum(row[0] for row in rows) / len(rows)
        quick = math.exp(sum(math.log(row[1]) for row in rows) / len(rows))
        yield (
            f"| {group} | {len(rows)} | {sum(row[2] for row in rows)} "
            f"| {sum(row[3] for row in rows)} | {served:.3f} | {quick:.2f} |"
        )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first world")
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    numbers = range(args.first, args.first + args.worlds)
    with ProcessPoolExecutor(args.processes) as pool:
        outcomes = list(pool.map(both, [(number, args.seeds) for number in numbers]))
    text = "\n".join(tables([draw(number) for number in numbers], outcomes))
    print(text)
    if args.markdown:
        args.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
