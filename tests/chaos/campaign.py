"""Chaos on both sides of a door; afterwards everything is as it was.

    python -m tests.chaos.campaign [--seeds 20] [--requests 2000] [--door sidecar]

prints a line for each seed and door; the status is 1 if anything was lost, ended twice, was sent
twice against the rules or left behind, or if memory grew.
"""

import argparse
import asyncio
import gc
import json
import math
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import httpx2

from penstock.batch.checkpoint import Checkpoint
from penstock.batch.lines import inspect
from penstock.batch.runner import Batch, RetryBounds
from penstock.batch.sending import HttpSend
from penstock.core.settings import PolicySpec, Stack
from penstock.proxy.config import loads
from penstock.proxy.server import Running
from tests.chaos.books import Books
from tests.chaos.callers import (
    Found,
    at_rest,
    body_of,
    booked,
    closed,
    crowd,
    hints,
    program,
)
from tests.chaos.provider import anything
from tests.chaos.threads import in_threads
from tests.virtual_loop import run_virtual

EARLY, MOST_GROWTH = 0.1, 1.3
"""What is resident after a tenth of the seeds grows by less than a third up to the end."""
MOST_RUNS = 50
"""Of a batch, beyond one for each line: some answers end a run, such as a refused key."""
SIDECAR = """
[server]
port = 0
[admin]
enabled = false
[scheduler]
max_pause_s = 30.0
[predictor]
kind = "off"
[[upstreams]]
name = "odd"
base_url = "{url}"
auth = "none"
first_byte_timeout_s = 5.0
idle_timeout_s = 2.0
[[classes]]
name = "interactive"
weight = 4.0
buckets = ["short"]
ttl_s = 30.0
[[classes]]
name = "batch"
buckets = ["medium", "long", "xlong"]
ttl_s = 30.0
"""


async def in_sidecar(seed: str, requests: int) -> Found:
    """Play against a sidecar, with raw sockets."""
    found, books, chance = Found(requests), Books(), random.Random(seed)
    async with anything(seed, extra=True) as (provider, url):
        running = Running(loads(SIDECAR.format(url=url), env={}))
        running.sidecar.driver.observers.append(books)
        up = asyncio.Event()
        serving = asyncio.create_task(running.run(started=up.set, signals=False))
        await up.wait()

        async def one(number: int) -> bool:
            status = await _raw_call(running.port, number, chance)
            found.answered += status.startswith(b"HTTP/1.1 ")
            return b" 200 " in status

        await crowd(requests, chance, one)
        await asyncio.sleep(60.0)
        found.expect("in hand", running.sidecar.in_hand, 0)
        found.expect("callers' connections", running.open_connections, 0)
        found.expect("room for bodies", running.sidecar.room.used_bytes, 0)
        at_rest("sidecar", running.sidecar.snapshot(), found)
        running.stop()
        await serving
        await asyncio.sleep(1.0)
        found.expect("provider's connections", provider.open, 0)
    return booked(provider, books, found)


async def _raw_call(port: int, number: int, chance: random.Random) -> bytes:
    """Make one call in some way; return the first line of the answer, if one came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    way = chance.random()
    data = json.dumps(body_of(number, chance)).encode()
    if way < 0.05:
        data = chance.choice((b"{", b"null", b"\xff" * 50, b"[" * 5000, b'"\\ud83d"'))
    head = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", f"content-length: {len(data)}"]
    head += [f"{name}: {value}" for name, value in hints(chance).items()]
    raw = "\r\n".join([*head, "content-type: application/json"]).encode() + b"\r\n\r\n" + data
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        if way < 0.08:
            raw = chance.choice((b"\x16\x03\x01\x02", b"GET\r\n\r\n", raw[:40], raw.lower()))
        if way < 0.2:
            writer.write(raw[: chance.randrange(len(raw))])  # and leaves
            await asyncio.sleep(chance.choice((0.0, 0.5)))
        elif way < 0.35:
            writer.write(raw)
            await asyncio.sleep(chance.choice((0.0, 0.01, 0.3, 2.0)))  # and leaves
        elif way < 0.4:
            writer.write(raw)
            writer.write_eof()
            await reader.read()
        else:
            writer.write(raw)
            if way < 0.5:
                await asyncio.sleep(3.0)  # reads late
            status = await reader.readuntil(b"\r\n")
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0 if way < 0.6 else 90.0):
                    while await reader.read(65536):
                        if chance.random() < 0.5:
                            break
            writer.close()
            return status
    writer.close()
    return b""


async def in_process(library: Any, seed: str, requests: int) -> Found:
    """Play through the async transport of httpx2 or httpx."""
    found, books, chance = Found(requests), Books(), random.Random(seed)
    async with anything(seed) as (provider, url):
        scheduled = program(books, asyncio.get_running_loop())
        client = scheduled.async_client(library=library.__name__, timeout=5.0)

        async def one(number: int) -> bool:
            body, leaves = body_of(number, chance), chance.random()
            data = json.dumps(body).encode()
            with suppress(library.HTTPError, TimeoutError, ValueError):
                async with asyncio.timeout(
                    chance.choice((0.001, 0.2, 1.0)) if leaves < 0.2 else 300
                ):
                    async with client.stream(
                        "POST", f"{url}/chat/completions", content=data, headers=hints(chance)
                    ) as reply:
                        found.answered += 1
                        async for _ in reply.aiter_raw():
                            if leaves > 0.9:
                                break
                        return bool(reply.status_code == 200)
            return False

        await crowd(requests, chance, one)
        await client.aclose()
        gc.collect()
        await asyncio.sleep(60.0)
        closed(scheduled, found)
        await asyncio.sleep(1.0)
        found.expect("provider's connections", provider.open, 0)
    return booked(provider, books, found)


async def in_batch(seed: str, requests: int) -> Found:
    """Work off a file."""
    found, books, chance = Found(requests), Books(), random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, out, errors = (folder / each for each in ("in.jsonl", "out.jsonl", "err.jsonl"))
        lines = (
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {**body_of(number, chance), "stream": False},
            }
            for number in range(requests)
        )
        source.write_text("".join(json.dumps(line) + "\n" for line in lines))
        async with anything(seed) as (provider, url):
            stack = Stack(overload=PolicySpec("always_admit"))
            scheduled = program(books, asyncio.get_running_loop(), stack=stack)
            send = HttpSend(url, None, scheduled, timeout_s=5.0)
            store = Checkpoint(folder / "c", out, errors, inspect(source), now_unix_s=0.0)
            with store:
                for _ in range(MOST_RUNS + requests):
                    # A key refused, an account spent: the same command again.
                    batch = Batch(
                        source,
                        store,
                        send,
                        ahead=32,
                        patience=RetryBounds(3),
                        chance=chance,
                        on_stop=lambda: None,
                    )
                    send.on_connection = batch.connected
                    await batch.run()
                    if store.totals.done == requests:
                        break
            await send.close()
            gc.collect()
            await asyncio.sleep(60.0)
            closed(scheduled, found)
        ids = Counter(
            int(json.loads(line)["custom_id"])
            for path in (out, errors)
            if path.exists()
            for line in path.read_bytes().splitlines()
        )
        found.answered = ids.total()
        found.expect("lines that are done", store.totals.done, requests)
        found.expect("lines without a result", sorted(set(range(requests)) - set(ids)), [])
        found.expect("lines with two", [line for line, count in ids.items() if count > 1], [])
    return booked(provider, books, found)


def virtually(door: Callable[[str, int], Awaitable[Found]], seed: str, requests: int) -> Found:
    """Play in virtual time; no task may be left."""

    async def played() -> Found:
        found = await door(seed, requests)
        await asyncio.sleep(5.0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        found.expect("tasks", [str(task.get_coro()) for task in left], [])
        return found

    return run_virtual(played())


DOORS: dict[str, Callable[[str, int], Found]] = {
    "sidecar": partial(virtually, in_sidecar),
    "httpx2": partial(virtually, partial(in_process, httpx2)),
    "httpx": partial(virtually, partial(in_process, httpx)),
    "batch": partial(virtually, in_batch),
    "httpx2-threads": partial(in_threads, httpx2),
    "httpx-threads": partial(in_threads, httpx),
}


def run(door: str, seed: int, requests: int) -> Found:
    """Play one seed at one door; what the process holds afterwards counts too."""
    gc.collect()  # what others have dropped is not this run's
    before = _descriptors()
    found = DOORS[door](f"{door}/{seed}", requests)
    gc.unfreeze()  # a sidecar takes what is there at its start for lasting: once in a process
    gc.collect()
    found.expect("descriptors left open", max(0, _descriptors() - before), 0)
    return found


def _descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0  # noqa: PTH208


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--requests", type=int, default=2000, help="For each seed and door.")
    parser.add_argument("--door", action="append", choices=DOORS)
    args = parser.parse_args()
    total, bad, level_mb = 0, False, math.inf
    early = args.first + math.ceil(args.seeds * EARLY) - 1
    for seed in range(args.first, args.first + args.seeds):
        for door in args.door or DOORS:
            found = run(door, seed, args.requests)
            if _resident_mb() > MOST_GROWTH * level_mb:
                found.expect("memory in MB", round(_resident_mb()), f"{level_mb:.0f} at first")
            total += found.requests
            bad = bad or bool(found.wrong)
            wrong = "; ".join(found.wrong[:5]) or "all as it was"
            print(
                f"seed {seed} {door}: {found.requests} made, {found.arrived} scheduled, "
                f"{found.answered} answered, {_resident_mb():.0f} MB: {wrong}",
                flush=True,
            )
        if seed == early:
            level_mb = _resident_mb()
    print(f"{total} requests in all")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
