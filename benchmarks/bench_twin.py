"""How far the twin may be believed: its check of itself and its intervals, on drawn worlds.

    python benchmarks/bench_twin.py [--worlds 3000:3020] [--length 5] [--jobs 1] [--markdown FILE]

Each world (`worlds_drawn.py`) runs under the default stack, LENGTH times as many requests as it is
drawn with, and leaves a decision log. The twin sees the log alone. Then

- its check of itself is counted: within 2 points of deadlines met and 15 % of P50 and P95 on the
  last 40 % of the calls, each replayed with the luck that it had. Beside it the same check of a
  wrong twin, the same kind with half the places: how often it is found out, where half the places
  tell the first 60 % worse by a tenth at least (else they are as good a twin);
- it is asked what two other configurations would have changed, and the world is run again under
  each, with the same luck: is the real change of deadlines met, P50 and P95 within the interval?
  `said` counts those where the interval leaves out 0, so that "better" or "worse" is claimed.

Worlds 3000 to 3499 are for work, 3500 to 3999 for reports.
"""

import argparse
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from worlds_drawn import World, draw

from penstock.core.settings import Settings
from penstock.errors import PenstockError
from penstock.log.format import Header, LogRecord
from penstock.metrics import RequestRecord
from penstock.policies.registry import build_scheduler
from penstock.sim.engine import Engine
from penstock.sim.scenario import Scenario, read_scenario, settings_of
from penstock.twin import capacity
from penstock.twin.check import Check, figures_of, split_at
from penstock.twin.flights import AttemptTimes, flights_of
from penstock.twin.history import History, history_of
from penstock.twin.kinds import Fit, fitted
from penstock.twin.model import Twin, checked, twin_of
from penstock.twin.policy import read_policy
from penstock.twin.told import TELL
from penstock.twin.whatif import whatif

FIGURES = ("met", "p50_s", "p95_s")
ROUNDING = {"met": 0.001, "p50_s": 0.005, "p95_s": 0.005}
"""What nobody would call a change: a tenth of a point, or half a per cent of a latency."""

ONE_TENTH = 0.1
"""Of the time that a reply takes."""


@dataclass
class Row:
    """What came of one world."""

    number: int
    kind: str
    load: float
    found: str
    check: Check
    wrong: Check | None
    claims: list[tuple[str, str, float, float, float, bool]] = field(default_factory=list)
    seconds: float = 0.0


def run(
    scenario: Scenario, settings: Settings, seed: int, watch: Any = None
) -> list[RequestRecord]:
    """Return what becomes of the world's requests under these settings."""
    workload = scenario.workload.build(seed, scenario.classes)
    engine = Engine(
        build_scheduler(settings),
        scenario.build_providers(seed),
        habits=scenario.workload.habits(),
        seed=seed,
        watch=watch,
    )
    return engine.run(workload).records


def logged(scenario: Scenario, settings: Settings, seed: int) -> History:
    """Return what a decision log of the world says."""
    header = Header(1, "world", 0.0, 0.0, settings)
    lines: list[LogRecord] = []

    def watch(now: float, event: Any, actions: Any) -> None:
        lines.append(LogRecord(header, now, event))
        lines.extend(LogRecord(header, now, action) for action in actions)

    run(scenario, settings, seed, watch)
    return history_of(lines)


def halved(history: History, twin: Twin) -> Check | None:
    """Return the check of the same kind with half the places; None where these tell as much."""
    since = split_at(history)
    fits: dict[str, list[Fit]] = {}
    worse = False
    for name, found in twin.early.items():
        flights = flights_of([a for a in history.attempts if a.upstream == name]).until(since)
        chosen = [fit for fit in found if fit.kind == twin.kind]
        fits[name] = [half_of(fit, flights) for fit in chosen]
        pairs = zip(fits[name], chosen, strict=True)
        worse = worse or any(half.error > fit.error + ONE_TENTH for half, fit in pairs)
    return checked(history, fits, twin.whole, twin.kind, since) if worse else None


def half_of(fit: Fit, flights: AttemptTimes) -> Fit:
    """Return the same kind with half the places, on the line that then fits best."""
    numbers = fit.told.numbers
    half: int | capacity.Path
    if isinstance(numbers.places, capacity.Path):
        half = numbers.places.times(0.5)
    else:
        half = max(1, numbers.places // 2)
    told = TELL[fit.kind](flights, replace(numbers, places=half), None)
    return replace(fitted(fit, told), bounded=True)  # it says that there are no more


def asked(world: World, history: History) -> list[tuple[str, dict[str, Any]]]:
    """Return two configurations to ask about: direct calls, and one that is drawn."""
    most = max(history_flights(history))
    dice = random.Random(f"policy {world.number}")
    others: list[tuple[str, dict[str, Any]]] = [
        ("half the window", {"scheduler": {"capacity": _fixed(0.5 * most)}}),
        ("twice the window", {"scheduler": {"capacity": _fixed(2.0 * most)}}),
        ("aimd", {"scheduler": {"capacity": "aimd"}}),
        ("fifo", {"scheduler": {"allocation": "fifo", "ordering": "fifo"}}),
        ("all admitted", {"scheduler": {"overload": "always_admit"}}),
        ("weight 1", {"classes": [{"name": "interactive", "weight": 1.0}]}),
    ]
    direct = {
        "allocation": "fifo",
        "ordering": "fifo",
        "overload": "always_admit",
        "capacity": "unlimited",
    }
    return [("direct", {"scheduler": direct}), dice.choice(others)]


def _fixed(window: float) -> dict[str, Any]:
    return {"kind": "fixed", "window": max(1, round(window))}


def history_flights(history: History) -> Iterator[int]:
    """Yield how many flew whenever one was sent."""
    moves = sorted(
        [(a.sent_at, 1, 1) for a in history.attempts]
        + [(a.ended_at, 0, -1) for a in history.attempts if not math.isnan(a.ended_at)]
    )
    flying = 0
    for _, _, step in moves:
        flying += step
        yield flying


def serve(number: int, *, length: int) -> Row | str:
    """Return what came of a world; in words if no twin could be made."""
    begun = time.process_time()
    world = draw(number)
    seed = 1_000 + number
    document = world.document({}, seed)
    requests = length * world.workload["requests"]
    document["workload"] = {**world.workload, "requests": requests}
    scenario = read_scenario(document)
    classes = scenario.workload.informant(scenario.classes).classes()
    held = settings_of(scenario.policies["it"], classes, scenario.upstreams)
    history = logged(scenario, held, seed)
    try:
        twin = twin_of(history)
    except PenstockError as error:
        return f"world {number} ({world.kind}): {error}"
    wrong = halved(history, twin)
    found = next(iter(twin.providers.values()))["model"]
    row = Row(number, world.kind, world.load, found, twin.check, wrong)
    everything = range(len(history.calls))
    before = figures_of([call.record() for call in history.calls], everything)
    for name, table in asked(world, history):
        policy = read_policy(table, where=name)
        said = whatif(history, twin, policy)[0].figures
        after = figures_of(run(scenario, policy.settings(held), seed), everything)
        for figure in FIGURES:
            change = getattr(after, figure) - getattr(before, figure)
            one = said[figure]
            row.claims.append((name, figure, change, one.low, one.high, one.sure))
    row.seconds = time.process_time() - begun
    return row


def within(claim: tuple[str, str, float, float, float, bool], row: Row) -> bool:
    """Return whether the real change is within the interval."""
    _, figure, change, low, high, _ = claim
    if math.isnan(change) or math.isnan(low):
        return math.isnan(change) == math.isnan(low)
    slack = ROUNDING[figure]
    if figure != "met":
        slack *= getattr(row.check.real, figure)
    return low - slack <= change <= high + slack


def line_of(row: Row) -> str:
    """Return a world's line of the table."""
    real, twin = row.check.real, row.check.twin
    claims = " ".join(
        f"{name}/{figure} {change:+.3g} in [{low:.3g}, {high:.3g}]"
        f"{'' if within(claim, row) else ' MISSED'}"
        for claim in row.claims
        for name, figure, change, low, high, _ in [claim]
    )
    return (
        f"| {row.number} | {row.kind} | {row.load:g} | {row.found} | {row.check.distance:.2f} "
        f"| {row.wrong.distance if row.wrong else math.nan:.2f} | {real.met:.3f}/{twin.met:.3f} "
        f"| {real.p50_s:.2f}/{twin.p50_s:.2f} | {real.p95_s:.2f}/{twin.p95_s:.2f} | {claims} |"
    )


HEAD = (
    "| world | kind | load | fitted | off, in bounds | half the places | met real/twin "
    "| P50 | P95 | real change in interval |\n|---|---|---|---|---|---|---|---|---|---|"
)


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the figures."""
    yield (
        "| worlds | number | twin within bounds | half the places found out "
        "| change within its interval | said better or worse | of these within |"
    )
    yield "|---|---|---|---|---|---|---|"
    for kind in sorted({row.kind for row in rows}):
        yield _figures(kind, [row for row in rows if row.kind == kind])
    yield _figures("trusted ones", [row for row in rows if row.check.passed])
    yield _figures("all", rows)


def _figures(label: str, rows: Sequence[Row]) -> str:
    claims = [(claim, row) for row in rows for claim in row.claims]
    held = [within(claim, row) for claim, row in claims]
    said = [ok for ok, (claim, _) in zip(held, claims, strict=True) if claim[5]]
    passed = np.mean([row.check.passed for row in rows]) if rows else math.nan
    wrong = [not row.wrong.passed for row in rows if row.wrong]
    caught = np.mean(wrong) if wrong else math.nan
    return (
        f"| {label} | {len(rows)} | {passed:.0%} | {caught:.0%} of {len(wrong)} "
        f"| {np.mean(held) if held else math.nan:.0%} of {len(held)} | {len(said)} "
        f"| {np.mean(said) if said else math.nan:.0%} |"
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--worlds", default="3000:3020", help="numbers of the worlds, A:B without B"
    )
    parser.add_argument("--length", type=int, default=5, help="times the drawn requests")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--markdown", type=Path, help="write all that is printed")
    args = parser.parse_args()
    first, last = (int(part) for part in args.worlds.split(":"))
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    tell(HEAD)
    rows: list[Row] = []
    with ProcessPoolExecutor(args.jobs) as pool:
        for row in pool.map(partial(serve, length=args.length), range(first, last)):
            if isinstance(row, str):
                tell(row)
                continue
            rows.append(row)
            tell(line_of(row))
    tell("")
    for line in summary(rows):
        tell(line)
    spent_s = sum(row.seconds for row in rows) / max(1, len(rows))
    tell(f"\n{spent_s:.0f} s of CPU a world, load average {os.getloadavg()[0]:.1f}")
    if args.markdown:
        args.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
