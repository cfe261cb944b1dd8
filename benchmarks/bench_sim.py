"""How fast a simulation runs, and how the cost of a decision grows with the queue.

    python benchmarks/bench_sim.py [--requests 8000] [--plot FILE.svg] [--json FILE.json]
                                   [--instructions]

Speed: the default stack on eight slots at load 1.0, with 100 requests waiting from the start, so
that about 100 wait throughout; workload, run and metrics included. Growth: a queue held at a
given length, each step one completion and one arrival. The ladder is off there, or it would not
let such a queue come to be. CPU time of this process, best and median of several runs: other
processes on the machine make a run slower, never faster. A fixed loop of plain Python is timed
between the runs, so that figures of two machines, or of one at two times, can be compared by their
ratio.

`--instructions` also counts machine instructions a request under valgrind's callgrind (it must be
installed): a figure that no other process can change.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import linear_regression, median
from typing import Any

from penstock.core.events import Arrived, Completed, Dispatch, WindowMoved
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.settings import PolicySpec, Settings, Stack
from penstock.metrics import measure
from penstock.policies.registry import build_scheduler
from penstock.sim.engine import Engine
from penstock.sim.scenario import read_scenario, settings_of
from penstock.sim.simulate import without_cycles
from penstock.sim.workload import Workload

BACKLOG = 100
SLOTS = 8
LOAD_1_PER_S = 3.5
"""Near what eight slots can serve of the balanced mix, in requests a second."""
LENGTHS = (100, 1_000, 10_000, 100_000)
STEPS = 4_000
YARDSTICK_STEPS = 300_000
BUCKETS = (("interactive", 32.0), ("heavy", 129.0), ("heavy", 513.0), ("heavy", 2050.0))


def best_cpu_s(work: Callable[[], object], repeats: int) -> float:
    """Return the least CPU time of several runs, in seconds."""
    found = math.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        found = min(found, time.process_time() - start)
    return found


def yardstick_s() -> float:
    """Return the CPU time of a fixed piece of plain Python."""
    start, number = time.process_time(), 0
    for step in range(YARDSTICK_STEPS):
        number = (number * 31 + step) % 1_000_003
    return time.process_time() - start


def play(requests: int, watch: Any = None) -> None:
    """Make the workload, run it and measure it."""
    plan = read_scenario(
        {
            "provider": {"model": "slots", "slots": SLOTS},
            "workload": {"rate_per_s": LOAD_1_PER_S, "requests": requests},
        }
    )
    with without_cycles():
        work = plan.workload.build(1, plan.classes)
        first = BACKLOG + SLOTS
        early = [
            replace(load, request=replace(load.request, arrived_at=0.0))
            for load in work.loads[:first]
        ]
        work = Workload((*early, *work.loads[first:]), work.classes)
        scheduler = build_scheduler(settings_of(plan.policies["default"], work.classes))
        engine = Engine(scheduler, plan.build_providers(1), watch=watch)
        measure(engine.run(work).records)


def speed(requests: int, repeats: int) -> dict[str, float]:
    """Return simulated requests a second and core, and the backlog that they met."""
    backlogs: list[int] = []
    play(
        requests,
        lambda _now, _event, actions: backlogs.extend(
            each.why.backlog for each in actions if not isinstance(each, WindowMoved)
        ),
    )
    times: list[float] = []
    yardsticks: list[float] = []
    for _ in range(repeats):
        yardsticks.append(yardstick_s())
        start = time.process_time()
        play(requests)
        times.append(time.process_time() - start)
    step_ns = min(yardsticks) / YARDSTICK_STEPS * 1e9
    return {
        "requests_per_s": requests / min(times),
        "requests_per_s_median": requests / median(times),
        "us_per_request": min(times) / requests * 1e6,
        "yardstick_step_ns": step_ns,
        "yardstick_steps_per_request": min(times) / requests * 1e9 / step_ns,
        "mean_backlog": sum(backlogs) / len(backlogs),
    }


def instructions(few: int = 1_000, many: int = 3_000) -> float:
    """Return machine instructions a request: the difference of two runs leaves the start out.

    Raises:
        RuntimeError: valgrind is not there or told no count.

    """
    counts: list[int] = []
    for requests in (few, many):
        told = subprocess.run(
            [
                *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
                *(sys.executable, __file__, "--play", str(requests)),
            ],
            env=os.environ | {"PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        found = re.search(r"Collected : (\d+)", told)
        if found is None:
            raise RuntimeError(f"valgrind told no count of instructions: {told[-400:]}")
        counts.append(int(found[1]))
    return (counts[1] - counts[0]) / (many - few)


def step_us(queued: int, *, deadline_s: float, repeats: int) -> float:
    """Return the CPU time of one completion and one arrival while so many wait, in us."""
    chance = Random(queued)
    classes = (TrafficClass("interactive", weight=4.0), TrafficClass("heavy"))
    stack = Stack(
        overload=PolicySpec("always_admit"), capacity=PolicySpec("fixed", {"window": SLOTS})
    )
    scheduler = build_scheduler(Settings(classes, stack=stack, queue_limit=10 * queued))
    flying: list[int] = []
    lengths: dict[int, int] = {}
    now, last_id = 0.0, 0

    def tell(event: Arrived | Completed) -> None:
        actions = scheduler.handle(event, now=now)
        flying.extend(action.request.id for action in actions if isinstance(action, Dispatch))

    def arrive() -> None:
        nonlocal last_id
        last_id += 1
        name, p50 = BUCKETS[chance.randrange(4)]
        due = now + deadline_s * (0.5 + chance.random())
        lengths[last_id] = int(p50)
        tell(Arrived(Request(last_id, name, now, TokenEstimate(p50, 1.7 * p50), due)))

    def steps() -> None:
        nonlocal now
        for _ in range(STEPS):
            now += 0.01
            done = flying.pop(0)
            tell(Completed(done, lengths.pop(done)))
            arrive()

    for _ in range(queued + SLOTS):
        arrive()
    return best_cpu_s(steps, repeats) / STEPS * 1e6


def growth(repeats: int) -> dict[str, dict[int, float]]:
    """Return the cost of a step by queue length, for queues that can and cannot be in time."""
    return {
        "deadlines far away": {n: step_us(n, deadline_s=1e7, repeats=repeats) for n in LENGTHS},
        "most already hopeless": {n: step_us(n, deadline_s=5.0, repeats=repeats) for n in LENGTHS},
    }


def log_fit(points: dict[int, float]) -> tuple[float, float, float]:
    """Return a, b of cost = a + b log10 n by least squares, and the greatest excess over it."""
    x, y = [math.log10(n) for n in points], list(points.values())
    slope, start = linear_regression(x, y)
    return start, slope, max(cost - start - slope * at for at, cost in zip(x, y, strict=True))


def plot(series: dict[str, dict[int, float]], path: Path) -> None:
    """Draw cost over length, with the logarithm fitted to each."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "penstock"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for number, (label, points) in enumerate(series.items()):
        x, y = list(points), list(points.values())
        axes.plot(x, y, "o-", color=f"C{number}", label=label)
        start, slope, _ = log_fit(points)
        line = [start + slope * math.log10(n) for n in x]
        axes.plot(x, line, ":", color=f"C{number}", label="a + b log n")
    axes.set(xscale="log", xlabel="requests waiting", ylabel="us per completion + arrival")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=8_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="write the growth as an SVG")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--instructions", action="store_true", help="count them (valgrind)")
    parser.add_argument("--play", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.play:
        play(args.play)
        return

    fast = speed(args.requests, args.repeats)
    print(
        f"{fast['requests_per_s']:,.0f} simulated requests/s/core, best of {args.repeats} runs "
        f"(median {fast['requests_per_s_median']:,.0f}); {fast['us_per_request']:.1f} us each, "
        f"mean backlog {fast['mean_backlog']:.0f}"
    )
    print(
        f"one request costs {fast['yardstick_steps_per_request']:,.0f} steps of a plain loop, "
        f"{fast['yardstick_step_ns']:.1f} ns each here; "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    if args.instructions:
        fast["instructions_per_request"] = instructions()
        print(f"{fast['instructions_per_request']:,.0f} instructions a request")
    series = growth(args.repeats)
    print(f"{'waiting':>10}  " + "  ".join(f"{name:>22}" for name in series))
    for n in LENGTHS:
        print(f"{n:>10,}  " + "  ".join(f"{points[n]:>19.1f} us" for points in series.values()))
    for name, points in series.items():
        start, slope, excess = log_fit(points)
        print(f"{name}: {start:.1f} + {slope:.1f} log10(n) us, at most {excess:.1f} us above it")
    if args.plot:
        plot(series, args.plot)
    if args.json:
        args.json.write_text(json.dumps({"speed": fast, "growth": series}, indent=2) + "\n")


if __name__ == "__main__":
    main()
