"""Troubles of a provider, through four doors, with penstock and without it, in virtual time.

    python -m benchmarks.troubles [--door async] [--only "429"] [--seed 1]

200 calls, four a second or all at once, of half a second each, to a provider that serves eight at
once; a batch hands over all of them at the start. Callers try again as the official SDKs do. A cell
says how many calls were answered well within 30 s (of a batch: at all), with penstock and without
it, and, where the trouble ends, how long after its end the first good answer came, and which share
of the calls of 10 s was answered from 5 s after its end on. A row in which penstock has fewer is
marked LOST, one whose first answer comes later than 2.5 s or whose share is below 95 % LATE; the
status is 1 then.
"""

import argparse
import sys

from benchmarks.troubles.doors import DOORS
from benchmarks.troubles.table import Trouble, troubles


def cell(trouble: Trouble, door: str, seed: int) -> tuple[str, bool]:
    """Return a cell, and whether penstock lost or was late."""
    with_it = DOORS[door](trouble, with_penstock=True, seed=seed)
    without = DOORS[door](trouble, with_penstock=False, seed=seed)
    said, late = f"{with_it.in_time}/{without.in_time}", False
    if trouble.until is not None and door != "batch":
        said += f", {with_it.first_after_s(trouble.until):.1f} s"
        said += f", {with_it.goodput_after(trouble.until):.0%}" if trouble.every_s else ""
        late = not with_it.recovered(trouble.until)
    lost = with_it.in_time < without.in_time
    return said + (" LOST" if lost else "") + (" LATE" if late else ""), lost or late


def plays(trouble: Trouble, door: str) -> bool:
    """Say whether a row has a cell: no line of a batch streams, and no service forks."""
    if trouble.life:
        return door in ("async", "sync")
    return not (trouble.streams and door == "batch")


def main() -> int:
    """Print the table; return 1 if a row was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--door", action="append", choices=DOORS, help="All of them by default.")
    parser.add_argument("--only", default="", help="Only rows whose name contains this.")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
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
