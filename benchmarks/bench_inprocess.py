"""What penstock costs in process: the same client with and without it, in turns, in one run.

The provider is scripted and answers at once with a 2 kB body, so what is measured is the client
alone. Nothing queues. Two answers are tried: one with a bare header, one with all the headers that
OpenAI's have, rate limits among them; and the second once more with the learning predictor, which
is off in process unless it is asked for, and reads ten a second of calls that are alike and wait
for nothing. Each pair of calls, one plain and one scheduled, is made
at one moment and in changing order, and the median of the pairs' differences is what is judged:
what else the machine does hits both. CPU time is shown beside it.

Run: python benchmarks/bench_inprocess.py [--calls 3000] [--json FILE]
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

PROMISED_MS = 0.15
PROMISED_IMPORT_MS = 50
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
BARE = {"content-type": "application/json"}
OPENAI = {
    "date": "Wed, 25 Nov 2026 22:31:17 GMT",
    "content-type": "application/json",
    "connection": "keep-alive",
    "access-control-expose-headers": "X-Request-ID",
    "openai-organization": "user-abc",
    "openai-processing-ms": "812",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "10000000",
    "x-ratelimit-limit-tokens": "2000000000",
    "x-ratelimit-remaining-requests": "9999999",
    "x-ratelimit-remaining-tokens": "1999999000",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "24ms",
    "x-request-id": "req_0123456789abcdef",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
    "cf-cache-status": "DYNAMIC",
    "set-cookie": "__cf_bm=abc; path=/; HttpOnly; Secure; SameSite=None",
    "x-content-type-options": "nosniff",
    "server": "cloudflare",
    "cf-ray": "8abc-FRA",
    "alt-svc": 'h3=":443"; ma=86400',
}
"""As OpenAI's answers have them; the limits themselves so high that nothing waits for them."""
CASES = {
    "bare": (BARE, "table"),
    "openai": (OPENAI, "table"),
    "openai learned": (OPENAI, "learned"),
}
"""The headers of the answer, and the predictor."""
Pairs = list[tuple[float, float, float, float]]
"""Seconds of wall time, plain and scheduled, then of CPU time, plain and scheduled."""


class Instant(httpx2.AsyncBaseTransport):
    """Answers at once, with a body that still has to be read."""

    def __init__(self, headers: dict[str, str] = BARE) -> None:
        self._headers = list(headers.items())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=self._headers, stream=httpx2.ByteStream(REPLY))


class InstantSync(httpx2.BaseTransport):
    """The sync twin."""

    def __init__(self, headers: dict[str, str] = BARE) -> None:
        self._headers = list(headers.items())

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=self._headers, stream=httpx2.ByteStream(REPLY))


async def measure_async(calls: int, headers: dict[str, str], predictor: str) -> Pairs:
    """Return what each pair of calls took, one plain and one scheduled."""
    plain = httpx2.AsyncClient(transport=Instant(headers))
    scheduled = Penstock(predictor=predictor).async_client(transport=Instant(headers))

    async def timed(client: httpx2.AsyncClient) -> tuple[float, float]:
        began, cpu = time.perf_counter(), time.thread_time()
        await client.post(URL, content=BODY)
        return time.perf_counter() - began, time.thread_time() - cpu

    pairs = []
    for number in range(calls):
        if number % 2:
            one, other = await timed(plain), await timed(scheduled)
        else:
            other, one = await timed(scheduled), await timed(plain)
        pairs.append((one[0], other[0], one[1], other[1]))
    return pairs


def measure_sync(calls: int, headers: dict[str, str], predictor: str) -> Pairs:
    """Return what each pair of calls took, one plain and one scheduled."""
    plain = httpx2.Client(transport=InstantSync(headers))
    scheduled = Penstock(predictor=predictor).client(transport=InstantSync(headers))

    def timed(client: httpx2.Client) -> tuple[float, float]:
        began, cpu = time.perf_counter(), time.thread_time()
        client.post(URL, content=BODY)
        return time.perf_counter() - began, time.thread_time() - cpu

    pairs = []
    for number in range(calls):
        if number % 2:
            one, other = timed(plain), timed(scheduled)
        else:
            other, one = timed(scheduled), timed(plain)
        pairs.append((one[0], other[0], one[1], other[1]))
    return pairs


def import_ms(statement: str, runs: int = 15) -> float:
    """Return the median milliseconds that a fresh interpreter needs for a statement."""
    spent = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        spent.append((time.perf_counter() - began) * 1000)
    return statistics.median(spent)


def summary(pairs: Pairs, warm_up: int) -> dict[str, float]:
    """Return medians and 99th percentiles in milliseconds, and the medians of the differences."""
    kept = pairs[warm_up:]
    found: dict[str, float] = {}
    for name, at in (("plain", 0), ("penstock", 1)):
        ordered = sorted(pair[at] for pair in kept)
        found[f"{name}_p50_ms"] = statistics.median(ordered) * 1000
        found[f"{name}_p99_ms"] = ordered[int(len(ordered) * 0.99)] * 1000
    found["added_p50_ms"] = statistics.median(pair[1] - pair[0] for pair in kept) * 1000
    found["added_cpu_p50_ms"] = statistics.median(pair[3] - pair[2] for pair in kept) * 1000
    return found


def main() -> int:
    """Measure, print the table, and fail if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=3000, help="Pairs of calls of each kind.")
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    options = parser.parse_args()
    warm_up = options.calls // 10
    figures: dict[str, Any] = {}
    for name, (headers, predictor) in CASES.items():
        pairs = asyncio.run(measure_async(options.calls, headers, predictor))
        figures[f"async {name}"] = summary(pairs, warm_up)
        figures[f"sync {name}"] = summary(measure_sync(options.calls, headers, predictor), warm_up)
    for kind, row in figures.items():
        print(
            f"{kind:20}  plain p50 {row['plain_p50_ms']:.3f} ms  "
            f"penstock p50 {row['penstock_p50_ms']:.3f} ms  "
            f"added p50 {row['added_p50_ms']:.3f} ms (promise: {PROMISED_MS}), "
            f"CPU {row['added_cpu_p50_ms']:.3f} ms  "
            f"p99 {row['plain_p99_ms']:.3f} -> {row['penstock_p99_ms']:.3f} ms"
        )
    kept = all(row["added_p50_ms"] <= PROMISED_MS for row in figures.values())
    figures["import_added_ms"] = import_ms("import penstock") - import_ms("pass")
    print(f"import penstock: {figures['import_added_ms']:+.1f} ms (promise: {PROMISED_IMPORT_MS})")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    return 0 if kept and figures["import_added_ms"] <= PROMISED_IMPORT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
