"""Troubles of a provider, through four doors, with penstock and without it, in virtual time.

    python -m benchmarks.troubles [--door async] [--only "429"] [--seed 1] [--drawn 0:200]

200 calls, four a second or all at once, of half a second each, to a provider that serves eight at
once; a batch hands over all of them at the start. Callers try again as the official SDKs do. A cell
says how many calls were answered well within 30 s (of a batch: at all), with penstock and without
it, and, where the trouble ends, how long after its end the first good answer came, and which share
of the calls of 10 s was answered from 5 s after its end on. A row in which penstock has fewer is
marked LOST, one whose first answer comes later than 2.5 s or whose share is below 95 % LATE; the
status is 1 then.

With --drawn, outages are drawn: a provider of 1 to 24 places, 3 to 300 callers that state their
deadline or leave then, refusals, faults or silence for 1 to 120 s, of all attempts or of a share.
Those are printed in which fewer than 98 % of direct calls' good answers came in time, whose first
good answer came later than 2 s after the provider was well and asked, or whose goodput was not back
after 5 s (50 callers and more: 30 s). Work on some seeds, and report others.
"""

import argparse
import sys

from benchmarks.troubles.doors import DOORS
from benchmarks.troubles.drawn import GOOD_SHARE, outage
from benchmarks.troubles.table import Trouble, troubles


def cell(trouble: Trouble, door: str, seed: int) -> tuple[str, bool]:
    """Return a cell, and whether penstock lost or was late."""
    with_it = DOORS[door](trouble, with_penstock=True, seed=seed)
    without = DOORS[door](trouble, with_penstock=False, seed=seed)
    said, late = f"{with_it.in_time}/{without.in_time}", False
    if trouble.until is not None and door != "batch":
        said += f", {with_it.first_after_s(trouble.until):.1f} s"
        said += f", {with_it.goodput_after(trouble.until):.0%}" if trouble.calls.every_s else ""
        late = not with_it.recovered(trouble.until)
    lost = with_it.in_time < without.in_time
    return said + (" LOST" if lost else "") + (" LATE" if late else ""), lost or late


def drawn(seeds: range, door: str) -> bool:
    """Print the outages that are lost or late, and how many of all; return whether there is one."""
    kept: dict[str, list[tuple[float, bool, bool]]] = {}
    for seed in seeds:
        world = outage(seed)
        with_it = DOORS[door](world.trouble, with_penstock=True, seed=seed)
        without = DOORS[door](world.trouble, with_penstock=False, seed=seed)
        share = with_it.in_time / max(1, without.in_time)
        first, goodput = world.recovered(with_it)
        kept.setdefault(world.kind, []).append((share, first, goodput))
        words = [f"{with_it.in_time}/{without.in_time} = {share:.3f}"]
        words += ["LOST"] * (share < GOOD_SHARE)
        words += [f"first {with_it.first_after_s(world.trouble.until or 0.0):.1f} s"] * (not first)
        words += ["goodput"] * (not goodput)
        if len(words) > 1:
            print(world.trouble.name, "|", ", ".join(words), flush=True)
    every = [each for kind in kept.values() for each in kind]
    for kind, worlds in [*sorted(kept.items()), ("all", every)]:
        lost = sum(share < GOOD_SHARE for share, _, _ in worlds)
        late = sum(not (first and goodput) for _, first, goodput in worlds)
        print(f"{kind}: {len(worlds)} worlds, {lost} lost, {late} late", flush=True)
    return any(share < GOOD_SHARE or not (a and b) for share, a, b in every)


def plays(trouble: Trouble, door: str) -> bool:
    """Say whether a row has a cell: no batch streams, no service forks, no thread leaves."""
    if trouble.life:
        return door in ("async", "sync")
    if trouble.calls.leaves:
        return door in ("async", "sidecar")
    return not (trouble.calls.streams and door == "batch")


def main() -> int:
    """Print the table; return 1 if a row was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--door", action="append", choices=DOORS, help="All of them by default.")
    parser.add_argument("--only", default="", help="Only rows whose name contains this.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--drawn", metavar="A:B", help="Instead, the drawn outages of these seeds.")
    args = parser.parse_args()
    if args.drawn:
        first, end = map(int, args.drawn.split(":"))
        found = [drawn(range(first, end), door) for door in args.door or ["async"]]
        return int(any(found))
    doors = args.door or list(DOORS)
    print("| trouble |", " | ".join(doors), "|")
    print("|---" * (len(doors) + 1) + "|")
    any_lost = False
    for trouble in troubles():
        if args.only not in trouble.name:
            continue
        cells = []
        for door in doors:
            if not plays(trouble, door):
                cells.append("-")
                continue
            said, lost = cell(trouble, door, args.seed)
            cells.append(said)
            any_lost = any_lost or lost
        print(f"| {trouble.name} |", " | ".join(cells), "|", flush=True)
    return int(any_lost)


if __name__ == "__main__":
    sys.exit(main())
