"""A real inference engine behind direct calls, semaphores and penstock, by turns.

    make bench-engines
    .venv/bin/python -m benchmarks.engines [--engine vllm] [--slots 4] [--load 1.0] [--streamed 0.5]
        [--rounds 4] [--url URL [--model NAME]] [--json FILE] [--decisions FOLDER]

llama.cpp's own server, or vLLM's, runs a model with random weights. Another engine that already
runs is named by `--url` (without /v1), `--model` and, as `--slots`, the number of calls that it
works on at once. Ends with status 1 where penstock's default loses.
"""

import argparse
import asyncio
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from benchmarks.engines.arms import NAMES
from benchmarks.engines.engine import Engine, llama_cpp, vllm
from benchmarks.engines.play import Cell, play
from benchmarks.engines.table import HEAD, Row, lost, row_of

ENGINES = {"llama.cpp": llama_cpp, "vllm": vllm}
LOADS, STREAMED = (0.7, 1.0, 1.3), (1.0, 0.0, 0.5)


async def run(engine: Engine, args: argparse.Namespace) -> list[Row]:
    """Play every cell, print each when it is done."""
    rows: list[Row] = []
    print(HEAD)
    for streamed in args.streamed or STREAMED:
        for load in args.load or LOADS:
            cell = Cell(load, streamed, args.rounds, args.slice_s, args.seed)
            # The sidecar's scheduler is the same; one cell shows that its door is as good.
            with_sidecar = load == 1.0 and streamed == 0.5
            names = args.arm or (NAMES if with_sidecar else NAMES[:-1])
            log = args.decisions and args.decisions / f"load-{load:g}-streamed-{streamed:g}.jsonl"
            found = await play(engine, cell, names, log)
            here = [row_of(cell, name, played) for name, played in found.items()]
            print("\n".join(each.line() for each in here), flush=True)
            rows += here
    return rows


def main() -> int:
    """Parse, play, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--engine", choices=ENGINES, default="llama.cpp")
    parser.add_argument("--slots", type=int, default=4, help="Calls that the engine works on.")
    parser.add_argument("--load", type=float, action="append", help="Share of the capacity.")
    parser.add_argument("--streamed", type=float, action="append", help="Share of the calls.")
    parser.add_argument("--arm", action="append", choices=NAMES)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--slice-s", type=float, default=8.0, help="An arm's turn in a round.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="An engine that runs already, without /v1.")
    parser.add_argument("--model", default="any", help="What that engine calls its model.")
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    parser.add_argument("--decisions", type=Path, help="Write penstock's decision logs here.")
    args = parser.parse_args()
    running = Engine(args.url.rstrip("/"), args.slots, args.model) if args.url else None
    started = ENGINES[args.engine](args.slots)
    with nullcontext(running) if running else started as engine:
        rows = asyncio.run(run(engine, args))
    if args.json:
        args.json.write_text(json.dumps([each.figures() for each in rows], indent=1))
    losses = lost(rows)
    print("\n".join(losses) if losses else "penstock's default loses nowhere")
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
