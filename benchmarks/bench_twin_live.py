"""The twin of a sidecar over real sockets: its check of itself, and a change that was really tried.

    python benchmarks/bench_twin_live.py [--seconds 120] [--only slots] [--markdown FILE]

For each provider a `penstock mock` and a `penstock serve` with a decision log are started and
sent a workload; the twin sees the log alone. Then the same workload is sent to a sidecar with half
the window that was seen, and the real change is compared with the twin's interval.
"""

import argparse
import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

from penstock.experiments.live import send_workload, sidecar_and_mock
from penstock.log.reader import read_log
from penstock.metrics import RequestRecord
from penstock.sim.scenario import read_scenario
from penstock.twin.check import figures_of
from penstock.twin.history import history_of
from penstock.twin.model import twin_of
from penstock.twin.policy import read_policy
from penstock.twin.whatif import whatif

SPEED = {"tokens_per_s": 400.0, "ttft_s": 0.1}
PROVIDERS: dict[str, dict[str, Any]] = {
    "slots": {"model": "slots", "slots": 8, **SPEED},
    "slots, jitter 0.2": {"model": "slots", "slots": 8, "jitter": 0.2, **SPEED},
    "shared": {"model": "shared", "capacity": 8, **SPEED},
    "slots, slower when full": {"model": "slots", "slots": 12, "beta": 0.05, **SPEED},
    "halved": {"model": "slots", "slots": 12, "changes": [{"at_s": 30, "slots": 6}], **SPEED},
    "limited": {
        "model": "slots",
        "slots": 12,
        "limits": {"rpm": 300, "burst_s": 10, "dialect": "openai"},
        **SPEED,
    },
}
RATE_PER_S = 6.0
HALF = {"capacity": {"kind": "fixed", "window": 4}}
FIGURES = ("met", "p50_s", "p95_s")


async def played(
    provider: dict[str, Any], policy: dict[str, Any], seconds: float, folder: Path
) -> list[RequestRecord]:
    """Send the workload; leave the decision log in the folder."""
    scenario = read_scenario(
        {
            "provider": provider,
            "workload": {"requests": int(RATE_PER_S * seconds), "rate_per_s": RATE_PER_S},
        }
    )
    more = {"log": {"decisions_path": str(folder / "decisions.jsonl")}}
    workload = scenario.workload.build(1, scenario.classes)
    async with sidecar_and_mock(provider, policy, folder, more=more) as urls:
        answered = await send_workload(urls.sidecar, workload, lambda *_: None, stream_one_in=2)
    return [each.record for each in answered]


async def compared(name: str, provider: dict[str, Any], seconds: float) -> str:
    """Return the provider's lines of the table."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        before = await played(provider, {}, seconds, Path(first))
        after = await played(provider, HALF, seconds, Path(second))
        history = history_of(read_log(Path(first) / "decisions.jsonl"))
    twin = twin_of(history)
    said = whatif(history, twin, read_policy({"scheduler": HALF}, where="half"))[0].figures
    every = range(len(before))
    was, became = figures_of(before, every), figures_of(after, every)
    check = twin.check
    cells = (
        name,
        str(twin.providers["default"]),
        f"{check.distance:.2f}",
        f"{check.real.met:.3f}/{check.twin.met:.3f}",
        f"{check.real.p50_s:.2f}/{check.twin.p50_s:.2f}",
        f"{check.real.p95_s:.2f}/{check.twin.p95_s:.2f}",
    )
    lines = [f"| {' | '.join(cells)} |"]
    for figure in FIGURES:
        change, one = getattr(became, figure) - getattr(was, figure), said[figure]
        held = "within" if one.low <= change <= one.high else "NOT within"
        lines.append(
            f"|  half the window: {figure} | really {change:+.3f}, {held} {one.low:+.3f} to "
            f"{one.high:+.3f}{' (sure)' if one.sure else ''} | | | | |"
        )
    return "\n".join(lines)


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="of calls, for each run")
    parser.add_argument("--only", default="", help="providers whose name begins so")
    parser.add_argument("--markdown", type=Path, help="write all that is printed")
    args = parser.parse_args()
    head = "| provider | fitted | off, in bounds | met real/twin | P50 | P95 |"
    lines = [f"{head}\n|---|---|---|---|---|---|"]
    print(lines[0], flush=True)
    for name, provider in PROVIDERS.items():
        if name.startswith(args.only):
            lines.append(await compared(name, provider, args.seconds))
            print(lines[-1], flush=True)
    lines.append(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(lines[-1])
    if args.markdown:
        args.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
