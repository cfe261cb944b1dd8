"""A storm over real sockets: 100 callers, a provider that refuses everything for a minute.

    python -m benchmarks.storm [--storm 60] [--seed 1] [--json FILE]

Four storms at the same time, each through a `penstock serve` and a `penstock mock` of its own: 529,
503, 429 without a word, and 429 with `retry-after: 2`. Half a second before it begins, the provider
breaks every reply off after its first tokens. Nobody may be lost, nothing may be sent twice after
its first byte, attempts stay within 1.1 for each call that was there, and goodput is back to 95 %
after 30 s. Exit status 1 if not.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from benchmarks.storm.play import Played, Storm, play_storm

KINDS: tuple[tuple[int, float | None], ...] = ((529, None), (503, None), (429, None), (429, 2.0))
HEAD = (
    "| refusal | calls | whole | broken | refused to callers | sent twice | attempts in the storm "
    "| a call there | goodput after |"
)


def sent_twice(played: Played) -> int:
    """Return how many replies the provider began beyond those that callers saw begin."""
    begun = played.stats["finished"] + played.stats["faults"]
    return int(begun) - len(played.streams) - played.broken


def is_kept(played: Played) -> bool:
    """Say whether the storm ended as promised."""
    return (
        not played.answers
        and sent_twice(played) == 0
        and len(played.streams) + played.broken == len(played.asked_at)
        and played.refused <= 1.1 * played.present
        and played.recovered >= 0.95
    )


def row(played: Played) -> str:
    """Return one line of the table."""
    storm = played.storm
    wish = "" if storm.retry_after_s is None else f", retry-after {storm.retry_after_s:g}"
    name = f"{storm.status}{wish}"
    return (
        f"| {name} | {len(played.asked_at)} | {len(played.streams)} | {played.broken} "
        f"| {sum(played.answers.values())} | {sent_twice(played)} | {played.refused} "
        f"| {played.refused / played.present:.2f} | {played.recovered:.3f} |"
    )


async def play(args: argparse.Namespace) -> list[Played]:
    """Play all of them at once: the load of each is small, and the time it takes is the storm's."""
    storms = [
        Storm(storm_s=args.storm, status=status, retry_after_s=retry, seed=args.seed)
        for status, retry in KINDS
    ]
    return list(await asyncio.gather(*(play_storm(storm) for storm in storms)))


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--storm", type=float, default=60.0, help="How long it lasts, in seconds.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = asyncio.run(play(args))
    print(HEAD, "|" + "---|" * (HEAD.count("|") - 1), *map(row, found), sep="\n")
    if args.json:
        figures = [
            {
                "status": p.storm.status,
                "retry_after_s": p.storm.retry_after_s,
                "calls": len(p.asked_at),
                "whole": len(p.streams),
                "broken": p.broken,
                "answers": dict(p.answers),
                "attempts": p.attempts,
                "refused": p.refused,
                "present": p.present,
                "recovered": p.recovered,
            }
            for p in found
        ]
        args.json.write_text(json.dumps(figures, indent=1))
    sys.exit(not all(map(is_kept, found)))


if __name__ == "__main__":
    main()
