"""The same program behind a semaphore, a rate limiter, LiteLLM's router and penstock.

Each program sends the same calls, the demo's, to the demo's provider, whose 8 slots are known to
nobody. The first limits itself with a semaphore, as most do; the next with aiolimiter, told nine
tenths of the calls that the provider can serve, or just that many; the third sends by LiteLLM's
router, which is told each call's priority, at most 8 in flight or as many as there are, and
otherwise as it comes; the last passes `http_client=penstock.async_client()`. aiolimiter and LiteLLM
are in an environment of their own; without them their lines are left out.
Run: .venv-examples/bin/python benchmarks/bench_semaphore.py [--beside "rate 1" ...]
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import openai

import penstock
from penstock import Penstock
from penstock.experiments.demo.arm import LOAD, Shot, plan
from penstock.experiments.demo.run import provider
from penstock.metrics import RequestOutcome, RequestRecord, RunMetrics, measure

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network for prices
try:
    import aiolimiter
    import litellm
except ModuleNotFoundError as missing:
    print(f"Without aiolimiter and LiteLLM ({missing}; `make setup-examples` brings both).")
    ELSEWHERE: tuple[str, ...] = ()
else:
    ELSEWHERE = ("rate 0.9", "rate 1", "LiteLLM", "LiteLLM 8")

RIVALS = ("no limit", "semaphore 8", "semaphore 16", "semaphore 64", *ELSEWHERE)
ASK: list[Any] = [{"role": "user", "content": "Tell me of water, wheels and gates."}]
SHORT_TOKENS = 64
"""Up to here a call is interactive: the cap of the demo's shortest kind."""
Create = Callable[..., Awaitable[Any]]


async def send(create: Create, shot: Shot) -> RequestOutcome:
    """Send one call and say how it ended."""
    headers = {"x-mock-output-tokens": str(shot.output_tokens)}
    short = shot.max_tokens is not None and shot.max_tokens <= SHORT_TOKENS
    class_ = "interactive" if short else "batch"
    try:
        with penstock.request(class_=class_, deadline_s=shot.deadline_s):
            reply = await create(
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


async def routed(url: str, most_in_flight: int | None) -> Create:
    """Return LiteLLM's way to call: short ones have the better priority."""
    told = {"model": "openai/demo", "api_base": f"{url}/v1", "api_key": "any"}
    router = litellm.Router(
        model_list=[{"model_name": "demo", "litellm_params": told}],
        default_max_parallel_requests=most_in_flight,
    )

    async def create(**words: Any) -> Any:
        return await router.acompletion(priority=int(words["max_tokens"] > SHORT_TOKENS), **words)

    for stream in (False, True):  # LiteLLM imports much of itself at the first call of each kind
        await send(create, Shot(0.0, 1, 1, 60.0, stream))
    return create


async def play(shots: list[Shot], url: str, name: str) -> list[RequestRecord]:
    """Send every call at its time; its latency counts from there, waiting included."""
    kind, _, number = name.partition(" ")
    limit: AbstractAsyncContextManager[Any] = nullcontext()
    if kind == "semaphore":
        limit = asyncio.Semaphore(int(number))
    elif kind == "rate":
        # One call every so often: a bucket of a second would let that many through at once.
        limit = aiolimiter.AsyncLimiter(1, shots[-1].at_s * LOAD / len(shots) / float(number))
    ours = Penstock(predictor="max_tokens").async_client() if kind == "penstock" else None
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="any", max_retries=0, http_client=ours
    ) as client:
        await client.models.list()
        create: Create = client.chat.completions.create
        if kind == "LiteLLM":
            create = await routed(url, int(number) if number else None)
        begun = time.monotonic()

        async def one(shot: Shot) -> RequestRecord:
            await asyncio.sleep(max(0.0, begun + shot.at_s - time.monotonic()))
            arrived = time.monotonic() - begun
            async with limit:
                outcome = await send(create, shot)
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
    parser.add_argument("--beside", nargs="+", choices=RIVALS, default=RIVALS, help="Which others.")
    parser.add_argument("--seconds", type=float, default=25.0, help="Length of the load.")
    parser.add_argument("--seed", type=int, default=1, help="Of the load.")
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    options = parser.parse_args()
    shots = plan(options.seconds, seed=options.seed)
    figures: dict[str, RunMetrics] = {}
    for name in (*options.beside, "penstock"):
        with provider(options.seed) as url:
            figures[name] = measure(asyncio.run(play(shots, url, name)))
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
