"""The same program with a semaphore and with penstock, against the demo's provider and load.

Each program sends the same calls with the openai SDK. One limits itself with a semaphore, as most
do; the other passes `http_client=penstock.async_client()`. The provider's 8 slots are known to
nobody. Run: python benchmarks/bench_semaphore.py [--seconds 25] [--json FILE]
"""

import argparse
import asyncio
import json
import sys
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import openai

import penstock
from penstock import Penstock
from penstock.experiments.demo.children import provider
from penstock.experiments.demo.workload import Shot, plan
from penstock.metrics import RequestOutcome, RequestRecord, RunMetrics, measure

ASK: list[Any] = [{"role": "user", "content": "Tell me of water, wheels and gates."}]


async def send(client: openai.AsyncOpenAI, shot: Shot) -> RequestOutcome:
    """Send one call and say how it ended."""
    headers = {"x-mock-output-tokens": str(shot.output_tokens)}
    class_ = "interactive" if shot.max_tokens is not None and shot.max_tokens <= 64 else "batch"
    try:
        with penstock.request(class_=class_, deadline_s=shot.deadline_s):
            reply: Any = await client.chat.completions.create(
                model="demo",
                messages=ASK,
                max_tokens=shot.max_tokens,
                stream=shot.stream,
                extra_headers=headers,
            )
            if shot.stream:
                async for _ in reply:
                    pass
    except openai.APIError as error:
        return RequestOutcome.FAILED if penstock.refusal_of(error) is None else RequestOutcome.SHED
    return RequestOutcome.COMPLETED


async def play(
    shots: list[Shot], url: str, http_client: Any, limit: AbstractAsyncContextManager[Any]
) -> list[RequestRecord]:
    """Send every call at its time; its latency counts from there, waiting included."""
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="any", max_retries=0, http_client=http_client
    ) as client:
        await client.models.list()
        begun = time.monotonic()

        async def one(shot: Shot) -> RequestRecord:
            await asyncio.sleep(max(0.0, begun + shot.at_s - time.monotonic()))
            arrived = time.monotonic() - begun
            async with limit:
                outcome = await send(client, shot)
            ended = time.monotonic() - begun
            return RequestRecord(shot.bucket, arrived, arrived + shot.deadline_s, ended, outcome)

        return list(await asyncio.gather(*(one(shot) for shot in shots)))


def row(name: str, found: RunMetrics) -> str:
    """Return one line of the table."""
    return (
        f"{name:18} {found.deadline_satisfaction:9.1%} {found.short_p95_s or 0:9.2f} s "
        f"{found.p95_s or 0:8.2f} s {found.completion_rate:9.1%} "
        f"{found.useful_goodput_per_s or 0:7.2f}/s"
    )


def main() -> int:
    """Play each program in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=25.0, help="Length of the load.")
    parser.add_argument("--seed", type=int, default=1, help="Of the load.")
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    options = parser.parse_args()
    shots = plan(options.seconds, seed=options.seed)
    figures: dict[str, RunMetrics] = {}
    for name in ("no limit", "semaphore 8", "semaphore 16", "semaphore 64", "penstock"):
        with provider(options.seed) as url:
            if name == "penstock":
                records = asyncio.run(
                    play(shots, url, Penstock(predictor="max_tokens").async_client(), nullcontext())
                )
            elif name == "no limit":
                records = asyncio.run(play(shots, url, None, nullcontext()))
            else:
                semaphore = asyncio.Semaphore(int(name.split()[1]))
                records = asyncio.run(play(shots, url, None, semaphore))
        figures[name] = measure(records)
    print(f"{len(shots)} calls in {options.seconds:g} s")
    print(
        f"{'program':18} {'in time':>9} {'short P95':>11} {'P95':>10} "
        f"{'completed':>9} {'goodput':>9}"
    )
    for name, found in figures.items():
        print(row(name, found))
    if options.json:
        rows = {name: {k: getattr(f, k) for k in f.__slots__} for name, f in figures.items()}
        options.json.write_text(json.dumps(rows, indent=2, default=str))
    best = max(found.deadline_satisfaction for name, found in figures.items() if name != "penstock")
    return 0 if figures["penstock"].deadline_satisfaction >= best else 1


if __name__ == "__main__":
    sys.exit(main())
