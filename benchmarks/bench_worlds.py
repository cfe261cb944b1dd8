"""Worlds that nobody chose: what the default stack is worth beside others, direct calls included.

    python benchmarks/bench_worlds.py [--seeds 0:100] [--report] [--cells] [--arms default,direct]
                                      [--arm 'NAME={"capacity": ...}'] [--subject default]
                                      [--runs 2] [--jobs 1] [--quiet] [--markdown FILE]

Each world is drawn whole from its number (`worlds_drawn.py`): one of eleven kinds of provider, 1
to 256 places, load 0.2 to 2, mix, arrivals, deadlines, priors, prompts and prompt caches, noise,
spells, changes, several upstreams, limits, streamed or not or mixed. The numbers are split for
good: below 10,000 for work; `--report` alone runs 10,000 to 10,199, which nobody looks into; from
20,000 on they are yours. `--cells` runs the named worlds of `worlds_cells.py` instead.

Every arm serves the same draws. A world's best arm is the one that meets the most deadlines (to a
hundredth), of several the one with the lowest short P95. The subject is within the band if it
meets no more than 3 points fewer, with a short P95 of at most 1.25 times the best arm's; its
regret is how many points fewer it meets than the arm that meets the most. Worlds in which no arm
meets a fifth of the deadlines are left out.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from worlds_cells import cells
from worlds_drawn import TESTING, WORKING, World, draw

from penstock.errors import ProtocolError
from penstock.metrics import measure
from penstock.sim.scenario import read_scenario
from penstock.sim.simulate import run_one

REPORTED = 200
BAND_POINTS, BAND_P95 = 3.0, 1.25
LEAST_MET = 0.2
UNORDERED = {"allocation": "fifo", "ordering": "fifo", "overload": "always_admit"}

Stack = dict[str, Any]


def arms_of(world: World, others: dict[str, Stack]) -> dict[str, Stack]:
    """Return every stack by name; those that are told the places know what nobody knows."""

    def told(times: float) -> Stack:
        return {"capacity": {"kind": "fixed", "window": max(1, round(times * world.places))}}

    return {
        "direct": UNORDERED | {"capacity": "unlimited"},
        "semaphore 16": UNORDERED | {"capacity": {"kind": "fixed", "window": 16}},
        "fifo told": UNORDERED | told(1.0),
        "default": {},
        "told": told(1.0),
        "told x0.6": told(0.6),
        "told x1.5": told(1.5),
        "told x3": told(3.0),
        "aimd": {"capacity": "aimd"},
        "gradient2": {"capacity": "gradient2"},
        **others,
    }


@dataclass(frozen=True)
class Outcome:
    """What one arm reached in one world, over all runs: share of deadlines met, short P95."""

    met: float
    short_p95_s: float


@dataclass(frozen=True)
class Row:
    """One world and what the arms reached in it."""

    world: World
    outcomes: dict[str, Outcome]
    seconds: float

    @property
    def best(self) -> str:
        """The name of the best arm."""
        return min(
            self.outcomes,
            key=lambda arm: (-round(self.outcomes[arm].met, 2), self.outcomes[arm].short_p95_s),
        )

    def regret(self, arm: str) -> float:
        """Return how many points fewer deadlines it meets than the arm that meets the most."""
        return 100.0 * (max(o.met for o in self.outcomes.values()) - self.outcomes[arm].met)

    def in_band(self, arm: str) -> bool:
        """Return True if it is close enough to the best arm."""
        ours, best = self.outcomes[arm], self.outcomes[self.best]
        close = 100.0 * (best.met - ours.met) <= BAND_POINTS
        return close and ours.short_p95_s <= BAND_P95 * best.short_p95_s

    def loss_to(self, arm: str, other: str) -> float:
        """Return how many points fewer deadlines it meets than the other arm."""
        return 100.0 * (self.outcomes[other].met - self.outcomes[arm].met)


def play(world: World, stack: Stack, runs: int) -> Outcome:
    """Return the means over the runs; a run that does not end meets nothing and is told of."""
    met = p95_s = 0.0
    for seed in range(1, runs + 1):
        scenario = read_scenario(world.document(stack, seed))
        try:
            found = measure(run_one(scenario, "it", seed).records)
        except ProtocolError as error:
            print(f"world {world.number}, {stack}: {error}", file=sys.stderr)
            return Outcome(0.0, float("inf"))
        met += found.deadline_satisfaction / runs
        # Whoever completes no short request has no short P95 to be proud of.
        p95_s += (float("inf") if found.short_p95_s is None else found.short_p95_s) / runs
    return Outcome(met, p95_s)


def serve(world: World | int, *, names: Sequence[str], others: dict[str, Stack], runs: int) -> Row:
    """Return what the arms of these names reach; all of them if none is named."""
    world = draw(world) if isinstance(world, int) else world
    start = time.process_time()
    stacks = arms_of(world, others)
    outcomes = {arm: play(world, stacks[arm], runs) for arm in names or stacks}
    return Row(world, outcomes, time.process_time() - start)


def line_of(row: Row, subject: str) -> str:
    """Return a world's line of the table."""
    world, ours = row.world, row.outcomes[subject]
    found = " ".join(f"{arm} {o.met:.3f}/{o.short_p95_s:.2f}" for arm, o in row.outcomes.items())
    marks = "" if row.in_band(subject) else "*"
    return (
        f"| {world.number} | {world.kind} | {world.places} | {world.load:g} "
        f"| {world.workload.get('stream', False)} | {world.marks()} "
        f"| {ours.met:.3f} {ours.short_p95_s:.2f} {marks} | {row.regret(subject):.1f} "
        f"| {row.best} | {found} |"
    )


HEAD = (
    "| world | kind | places | load | streamed | marks | subject | regret | best | all arms |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def summary(rows: Sequence[Row], subject: str) -> Iterator[str]:
    """Yield the subject's figures by kind of provider, then each arm's over all worlds."""
    yield (
        "| worlds | number | within 3 points and 1.25x of the best | mean regret, points "
        "| below direct by > 3 | by > 10 | worst |"
    )
    yield "|---|---|---|---|---|---|---|"
    kinds = sorted({row.world.kind for row in rows})
    for kind in kinds:
        yield figures(kind, [row for row in rows if row.world.kind == kind], subject)
    for arm in rows[0].outcomes:
        yield figures(f"all: {arm}", rows, arm)


def figures(label: str, rows: Sequence[Row], arm: str) -> str:
    """Return one line of the summary."""
    share = sum(row.in_band(arm) for row in rows) / len(rows)
    regret = sum(row.regret(arm) for row in rows) / len(rows)
    line = f"| {label} | {len(rows)} | {share:.0%} | {regret:.1f} "
    if "direct" not in rows[0].outcomes:
        return f"{line}| | | |"
    losses = [row.loss_to(arm, "direct") for row in rows]
    three, ten = (sum(loss > most for loss in losses) / len(rows) for most in (3.0, 10.0))
    worst = max(rows, key=lambda row: row.loss_to(arm, "direct"))
    return f"{line}| {three:.1%} | {ten:.1%} | {max(losses):.1f} ({worst.world.number}) |"


def numbers_of(args: argparse.Namespace) -> Sequence[int]:
    """Return which worlds are asked for.

    Raises:
        SystemExit: worlds that are kept for reports are asked for by number.

    """
    if args.report:
        return TESTING[:REPORTED]
    first, last = (int(part) for part in str(args.seeds).split(":"))
    if first < TESTING.stop and last > TESTING.start:
        raise SystemExit(
            f"--seeds {args.seeds}: worlds {TESTING.start} to {TESTING.stop - 1} are kept for "
            f"--report; work on those below {WORKING.stop}"
        )
    return range(first, last)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", default="0:100", help="numbers of the worlds, A:B without B")
    parser.add_argument("--report", action="store_true", help="the worlds kept for reports")
    parser.add_argument("--cells", action="store_true", help="the named worlds")
    parser.add_argument("--arms", default="", help="names of the arms, with commas; all if empty")
    parser.add_argument("--arm", action="append", default=[], help="another one: NAME=JSON")
    parser.add_argument("--subject", default="default", help="the arm that is judged")
    parser.add_argument("--runs", type=int, default=2, help="draws of the workload a world")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--quiet", action="store_true", help="only the summary")
    parser.add_argument("--markdown", type=Path, help="write all that is printed")
    return parser.parse_args()


def rows_of(args: argparse.Namespace) -> Iterator[Row]:
    """Yield the worlds' rows, in their order."""
    worlds: Sequence[World | int] = cells() if args.cells else numbers_of(args)
    others = {name: json.loads(text) for name, _, text in (arm.partition("=") for arm in args.arm)}
    names = [name for name in args.arms.split(",") if name]
    work = partial(serve, names=names, others=others, runs=args.runs)
    if args.jobs == 1:
        yield from map(work, worlds)
        return
    with ProcessPoolExecutor(args.jobs) as pool:
        yield from pool.map(work, worlds)


def main() -> None:
    """Run and print."""
    args = arguments()
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    rows: list[Row] = []
    left_out = 0
    if not args.quiet:
        tell(HEAD)
    for row in rows_of(args):
        if max(outcome.met for outcome in row.outcomes.values()) < LEAST_MET:
            left_out += 1
            continue
        rows.append(row)
        if not args.quiet:
            tell(line_of(row, args.subject))
    tell("")
    for line in summary(rows, args.subject):
        tell(line)
    spent_s = sum(row.seconds for row in rows)
    tell(
        f"\n{left_out} worlds left out, in which no arm met {LEAST_MET:.0%}; "
        f"{60.0 * len(rows) / spent_s:.0f} worlds a minute and core, "
        f"load average {os.getloadavg()[0]:.1f}"
    )
    if args.markdown:
        args.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
