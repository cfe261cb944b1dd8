"""What penstock costs in process: the same client with and without it, in turns, in one run.

The provider is scripted and answers at once with a 2 kB body, so what is measured is the client
alone. Nothing queues. Run: python benchmarks/bench_inprocess.py [--calls 3000] [--json FILE]
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

from penstock import Penstock

URL = "https://provider.example/v1/chat/completions"
BODY = json.dumps(
    {
        "model": "m",
        "max_tokens": 200,
        "messages": [{"role": "user", "content": "the mill turns " * 130}],
    }
).encode()
REPLY = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "water " * 300}}],
        "usage": {"prompt_tokens": 400, "completion_tokens": 300, "total_tokens": 700},
    }
).encode()
HEADERS = {"content-type": "application/json"}


class Instant(httpx2.AsyncBaseTransport):
    """Answers at once, with a body that still has to be read."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=HEADERS, stream=httpx2.ByteStream(REPLY))


class InstantSync(httpx2.BaseTransport):
    """The sync twin."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=HEADERS, stream=httpx2.ByteStream(REPLY))


async def measure_async(calls: int) -> dict[str, list[float]]:
    """Return each call's seconds, plain and scheduled, taken in turns."""
    plain = httpx2.AsyncClient(transport=Instant())
    scheduled = Penstock().async_client(transport=Instant())
    times: dict[str, list[float]] = {"plain": [], "penstock": []}
    for _ in range(calls):
        for name, client in (("plain", plain), ("penstock", scheduled)):
            began = time.perf_counter()
            await client.post(URL, content=BODY)
            times[name].append(time.perf_counter() - began)
    return times


def measure_sync(calls: int) -> dict[str, list[float]]:
    """Return each call's seconds, plain and scheduled, taken in turns."""
    plain = httpx2.Client(transport=InstantSync())
    scheduled = Penstock().client(transport=InstantSync())
    times: dict[str, list[float]] = {"plain": [], "penstock": []}
    for _ in range(calls):
        for name, client in (("plain", plain), ("penstock", scheduled)):
            began = time.perf_counter()
            client.post(URL, content=BODY)
            times[name].append(time.perf_counter() - began)
    return times


def import_ms(statement: str, runs: int = 15) -> float:
    """Return the median milliseconds that a fresh interpreter needs for a statement."""
    spent = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        spent.append((time.perf_counter() - began) * 1000)
    return statistics.median(spent)


def summary(times: dict[str, list[float]], warm_up: int) -> dict[str, float]:
    """Return medians and 99th percentiles in milliseconds, and the median difference."""
    found: dict[str, float] = {}
    for name, each in times.items():
        ordered = sorted(each[warm_up:])
        found[f"{name}_p50_ms"] = statistics.median(ordered) * 1000
        found[f"{name}_p99_ms"] = ordered[int(len(ordered) * 0.99)] * 1000
    found["added_p50_ms"] = found["penstock_p50_ms"] - found["plain_p50_ms"]
    return found


def main() -> int:
    """Measure, print the table, and fail if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=3000, help="Calls of each kind.")
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    options = parser.parse_args()
    warm_up = options.calls // 10
    figures: dict[str, Any] = {
        "async": summary(asyncio.run(measure_async(options.calls)), warm_up),
        "sync": summary(measure_sync(options.calls), warm_up),
    }
    figures["import_added_ms"] = import_ms("import penstock") - import_ms("pass")
    for kind in ("async", "sync"):
        row = figures[kind]
        print(
            f"{kind:5}  plain p50 {row['plain_p50_ms']:.3f} ms  "
            f"penstock p50 {row['penstock_p50_ms']:.3f} ms  "
            f"added p50 {row['added_p50_ms']:.3f} ms (promise: 0.150)  "
            f"p99 {row['plain_p99_ms']:.3f} -> {row['penstock_p99_ms']:.3f} ms"
        )
    print(f"import penstock: {figures['import_added_ms']:+.1f} ms (promise: 50)")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    kept = (
        figures["async"]["added_p50_ms"] <= 0.15
        and figures["sync"]["added_p50_ms"] <= 0.15
        and figures["import_added_ms"] <= 50
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
