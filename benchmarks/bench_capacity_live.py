"""How well the sidecar finds a hidden capacity over real sockets, beside windows that know it.

    python benchmarks/bench_capacity_live.py [--seconds 120] [--speed 2] [--together 2]
        [--only room] [--markdown FILE] [--json FILE]

Every cell starts a `penstock mock` and a `penstock serve` of its own for each arm, and sends all
arms the same calls at the same times: *known* (the default stack with the window, and the limits,
that the provider really has), *default* (the default stack, told nothing), *FIFO* (the window
known) and *direct* (no sidecar). Every third reply is streamed. A cell is kept when deadline
satisfaction is at least 0.97 times the known window's and short P95 at most 1.3 times (2 times
below 8 places). Where capacity moves, what arrives from 60 s after the change on counts.

`--speed 2` makes the provider twice as fast and deadlines half as long, so that 120 s hold what
240 s of a real provider would; penstock's own constants stay as they are. Cells of 32 places and
more want the machine for themselves (`--together 1`). `--only room` measures the queue time at
load 0.3 instead, from the first request on.
"""

import argparse
import asyncio
import json
import math
import signal
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from penstock.experiments.live.client import Answered, send_workload
from penstock.experiments.live.processes import sidecar_and_mock
from penstock.metrics import measure, nearest_rank
from penstock.sim.scenario import read_scenario

MIXES = {
    "balanced": {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1},
    "heavy": {"short": 0.2, "medium": 0.2, "long": 0.3, "xlong": 0.3},
}
BOUNDS = {"short": (16, 64), "medium": (65, 256), "long": (257, 1024), "xlong": (1025, 4096)}
DEADLINE_S = {"short": 1.0, "medium": 4.0, "long": 15.0, "xlong": 60.0}
LEAST_SATISFACTION, MOST_P95, SMALL, MOST_P95_SMALL = 0.97, 1.3, 8, 2.0
CHANGE_S, GRACE_S = 40.0, 60.0
FIFO = {"allocation": "fifo", "ordering": "fifo", "overload": "always_admit"}
HELD_S = 0.005


@dataclass(frozen=True)
class Cell:
    """One world. `rpm` and `tpm` are shares of the demand that the provider's limits let pass."""

    slots: int
    mix: str
    load: float
    then: int = 0
    rpm: float = 0.0
    tpm: float = 0.0

    @property
    def title(self) -> str:
        """How the table calls it."""
        name = f"{self.slots} → {self.then} slots" if self.then else f"{self.slots} slots"
        for share, unit in ((self.rpm, "requests"), (self.tpm, "tokens")):
            name += f", {unit}/min at {share:g} of demand" if share else ""
        return name


@dataclass
class Arm:
    """What one arm of a cell gave.

    Attributes:
        refused: answers that are no reply, by what the sidecar said or their status.
        seen_429: answers of 429 that came before the caller's deadline.

    """

    satisfaction: float = 0.0
    short_p95_s: float = math.inf
    refused: dict[str, int] = field(default_factory=dict)
    seen_429: int = 0
    attempts: int = 0
    requests: int = 0
    queue_p99_s: float = 0.0
    held: int = 0


def mean_tokens(mix: str) -> float:
    """Return the mean length of a mix's replies."""
    return sum(
        share * (BOUNDS[name][1] - BOUNDS[name][0]) / math.log(BOUNDS[name][1] / BOUNDS[name][0])
        for name, share in MIXES[mix].items()
    )


class World:
    """A cell at a speed and of a length."""

    def __init__(self, cell: Cell, *, seconds: float, speed: float, seed: int) -> None:
        self.cell = cell
        self._seed = seed
        places = min(cell.slots, cell.then) if cell.then else cell.slots
        per_s = 200.0 * speed
        mean_s = 0.15 / speed + mean_tokens(cell.mix) / per_s
        known = cell.then or places
        self.rate_per_s = cell.load * min(known, cell.slots) / mean_s
        self.provider: dict[str, Any] = {
            "model": "slots",
            "slots": cell.slots,
            "tokens_per_s": per_s,
            "ttft_s": 0.15 / speed,
        }
        self.counted_from_s = 0.0
        if cell.then:
            self.provider["changes"] = [{"at_s": CHANGE_S, "slots": cell.then}]
            self.counted_from_s = CHANGE_S + GRACE_S
            seconds += self.counted_from_s
        self.known: dict[str, Any] = {"capacity": {"kind": "fixed", "window": known}}
        limits: dict[str, Any] = {"burst_s": 10.0, "dialect": "openai"}
        stated: dict[str, Any] = {}
        if cell.rpm:
            limits["rpm"] = stated["requests_per_min"] = math.ceil(60 * self.rate_per_s * cell.rpm)
        if cell.tpm:
            tokens = mean_tokens(cell.mix) + 6  # and the prompt
            limits["tpm"] = math.ceil(60 * self.rate_per_s * tokens * cell.tpm)
            stated["tokens_per_min"] = limits["tpm"]
        if stated:
            self.provider["limits"] = limits
            self.known["limits"] = stated
        self._requests = int(self.rate_per_s * seconds)
        self._speed = speed

    def workload(self) -> Any:
        """Return what every arm is sent."""
        scenario = read_scenario(
            {
                "provider": {"model": "slots", "slots": 1},
                "workload": {
                    "requests": self._requests,
                    "rate_per_s": self.rate_per_s,
                    "mix": MIXES[self.cell.mix],
                    "deadline_s": {k: v / self._speed for k, v in DEADLINE_S.items()},
                },
            }
        )
        return scenario.workload.build(self._seed, scenario.classes)

    async def play(self, policy: dict[str, Any], *, direct: bool = False) -> Arm:
        """Send the workload through one stack, or past it."""
        with tempfile.TemporaryDirectory(prefix="penstock-live-") as folder:
            log = Path(folder, "decisions.jsonl")
            more = {"log": {"decisions_path": str(log)}}
            async with sidecar_and_mock(self.provider, policy, Path(folder), more=more) as urls:
                url = urls.mock if direct else urls.sidecar
                answered = await send_workload(url, self.workload(), _nobody, stream_one_in=3)
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(f"{urls.mock}/mock/stats") as reply,
                ):
                    stats = await reply.json()
            queued = [] if direct else _queue_times(log)
        return self._arm(answered, sum(stats["requests"].values()) - 1, queued)

    def _arm(self, answered: list[Answered], attempts: int, queued: list[float]) -> Arm:
        counted = [a for a in answered if a.record.arrived_at >= self.counted_from_s]
        metrics = measure([a.record for a in counted])
        refused: dict[str, int] = {}
        for each in answered:
            if each.status != 200:
                word = each.decision or str(each.status)
                refused[word] = refused.get(word, 0) + 1
        return Arm(
            metrics.deadline_satisfaction,
            math.inf if metrics.short_p95_s is None else metrics.short_p95_s,
            refused,
            sum(
                a.status == 429
                and a.decision in ("", "refused:upstream")
                and a.record.ended_at < a.record.deadline
                for a in answered
            ),
            attempts,
            len(answered),
            nearest_rank(sorted(queued), 99) or 0.0,
            sum(each >= HELD_S for each in queued),
        )


def _nobody(done: int, total: int) -> None:
    pass


def _queue_times(log: Path) -> list[float]:
    """Return how long each request waited in the scheduler, to the microsecond."""
    found = []
    for line in log.read_text("utf-8").splitlines():
        outcome = json.loads(line).get("outcome")
        if outcome is not None:
            found.append(float(outcome["queued_s"]))
    return found


STILL = [Cell(slots, mix, 1.0) for slots in (4, 8, 32, 128) for mix in MIXES]
LIMITED = [
    Cell(32, "balanced", 0.6, rpm=1.0),
    Cell(32, "balanced", 0.6, rpm=0.8),
    Cell(32, "balanced", 0.6, tpm=0.9),
]
MOVING = [
    Cell(8, mix, 1.0, then=then) if then == 4 else Cell(4, mix, 1.0, then=then)
    for then in (4, 8)
    for mix in MIXES
] + [Cell(32, "balanced", 1.0, then=16), Cell(16, "balanced", 1.0, then=32)]
ROOM = [Cell(slots, mix, 0.3) for slots in (8, 32, 64) for mix in MIXES]
TABLES = {"still": STILL, "limited": LIMITED, "moving": MOVING, "room": ROOM}
ARMS = ("known", "default", "FIFO", "direct")


async def cell_of(world: World, arms: Iterable[str]) -> dict[str, Arm]:
    """Play every arm of a cell at the same time: they share the machine's moods."""
    ways: dict[str, Callable[[], Any]] = {
        "known": lambda: world.play(world.known),
        "default": lambda: world.play({}),
        "FIFO": lambda: world.play({**world.known, **FIFO}),
        "direct": lambda: world.play({}, direct=True),
    }
    names = list(arms)
    found = await asyncio.gather(*(ways[name]() for name in names))
    return dict(zip(names, found, strict=True))


def verdict(cell: Cell, arms: dict[str, Arm]) -> str:
    """Return D and P for what was missed, as bench_capacity.py does."""
    known, ours = arms["known"], arms["default"]
    most = MOST_P95_SMALL if min(cell.slots, cell.then or cell.slots) < SMALL else MOST_P95
    missed = "" if ours.satisfaction >= LEAST_SATISFACTION * known.satisfaction else "D"
    return missed + ("" if ours.short_p95_s <= most * known.short_p95_s else "P")


def row(cell: Cell, arms: dict[str, Arm]) -> str:
    """Return one line of the table."""
    if len(arms) == 1:
        ours = arms["default"]
        return (
            f"| {cell.title} | {cell.mix} | {ours.requests} | {1000 * ours.queue_p99_s:.2f} ms | "
            f"{ours.held} | {ours.satisfaction:.3f} |"
        )
    shown = " | ".join(f"{a.satisfaction:.3f} {a.short_p95_s:.2f}" for a in arms.values())
    ours, known = arms["default"], arms["known"]
    ratio = ours.satisfaction / max(1e-9, known.satisfaction)
    return (
        f"| {cell.title} | {cell.mix} | {shown} | {ratio:.3f} "
        f"| {ours.short_p95_s / known.short_p95_s:.2f} | {verdict(cell, arms) or 'kept'} "
        f"| {ours.seen_429} | {ours.attempts / max(1, ours.requests):.3f} |"
    )


HEADS = {
    "room": "| provider | mix | requests | P99 queue | held 5 ms or more | deadlines met |",
    "": "| provider | mix | " + " | ".join(ARMS) + " | ratio | P95 ratio | band | 429s seen "
    "| attempts a request |",
}


async def run(args: argparse.Namespace) -> tuple[list[str], list[dict[str, Any]]]:
    """Play the tables; return lines and figures."""
    lines, figures = [], []
    gate = asyncio.Semaphore(args.together)
    for name, cells in TABLES.items():
        if args.only and name not in args.only.split(","):
            continue
        arms = ("default",) if name == "room" else ARMS

        async def one(cell: Cell, arms: tuple[str, ...] = arms) -> dict[str, Arm]:
            async with gate:
                world = World(cell, seconds=args.seconds, speed=args.speed, seed=args.seed)
                found = await cell_of(world, arms)
                print(row(cell, found), flush=True)
                return found

        wanted = [cell for cell in cells if not args.slots or cell.slots in args.slots]
        found = await asyncio.gather(*(one(cell) for cell in wanted))
        head = HEADS["room" if name == "room" else ""]
        lines += [f"### {name}", "", head, "|" + "---|" * (head.count("|") - 1)]
        lines += [row(cell, arms) for cell, arms in zip(wanted, found, strict=True)]
        lines.append("")
        figures += [
            {"table": name, **asdict(cell), "arms": {k: asdict(v) for k, v in arms.items()}}
            for cell, arms in zip(wanted, found, strict=True)
        ]
    return lines, figures


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="How long calls arrive.")
    parser.add_argument("--speed", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--together", type=int, default=2, help="Cells at the same time.")
    parser.add_argument("--only", help=f"Tables, by comma: {', '.join(TABLES)}.")
    parser.add_argument("--slots", type=int, action="append", help="Only these capacities.")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    # A shell's background job ignores SIGINT; asyncio takes it only from Python's own handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    lines, figures = asyncio.run(run(args))
    text = "\n".join(lines)
    print("\n" + text)
    if args.markdown:
        args.markdown.write_text(text)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
