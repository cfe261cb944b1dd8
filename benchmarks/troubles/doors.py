"""The ways to a provider, each with penstock and without it."""

import asyncio
import random
import tempfile
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import httpx2

from benchmarks.troubles.callers import Ends, ask, body_of, program, program_sync
from benchmarks.troubles.http import AsyncWire, SyncWire, served
from benchmarks.troubles.lives import URL, lived
from benchmarks.troubles.provider import Provider
from benchmarks.troubles.table import Trouble
from benchmarks.troubles.threads import VirtualThreads
from penstock import Penstock
from penstock.batch.checkpoint import Checkpoint
from penstock.batch.lines import inspect
from penstock.batch.runner import Batch
from penstock.batch.sending import HttpSend
from penstock.cli.batch import _penstock
from penstock.proxy.config import loads
from penstock.proxy.server import Running
from penstock.wire import jsonio
from tests.virtual_loop import VirtualLoop, run_virtual

GRACE_S = 0.001
LIMIT_S = 7200.0
"""Virtual seconds after which a program over sockets hangs: an hour is the longest wait asked."""
SIDECAR = """
[server]
port = 0
[admin]
enabled = false
[predictor]
kind = "off"
[[upstreams]]
name = "practice"
base_url = "{url}"
auth = "none"
[[classes]]
name = "interactive"
weight = 4.0
buckets = ["short"]
[[classes]]
name = "batch"
buckets = ["medium", "long", "xlong"]
"""


def _provider(trouble: Trouble, seed: int) -> Provider:
    return Provider(trouble.name, trouble.fault, seed, trouble.slots, trouble.service_s)


def _jitter_of(seed: int) -> AbstractContextManager[object]:
    """Draw the back-offs of gates that are made meanwhile from a seed."""
    seeded = SimpleNamespace(Random=lambda: random.Random(seed))
    return mock.patch("penstock.runtime.gate.random", seeded)


def _holds(trouble: Trouble) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    for at, span_s in trouble.holds:
        loop.call_at(at, loop.hold, span_s)


def in_process(trouble: Trouble, *, with_penstock: bool, seed: int) -> Ends:
    """Play an async program."""
    if trouble.life:
        with _jitter_of(seed):
            return lived(trouble, _provider(trouble, seed), "async", with_penstock=with_penstock)

    async def play() -> Ends:
        _holds(trouble)
        provider = _provider(trouble, seed)
        wire = AsyncWire(provider)
        loop = asyncio.get_running_loop()
        client = httpx2.AsyncClient(transport=wire, timeout=None)
        if with_penstock:
            client = Penstock(clock=loop, tracer=None).async_client(transport=wire, timeout=None)
        async with client:
            ends = await program(client, URL, trouble.calls)
        ends.asked = provider.asked
        return ends

    with _jitter_of(seed):
        return run_virtual(play())


def threads(trouble: Trouble, *, with_penstock: bool, seed: int) -> Ends:
    """Play a program with a thread for each call."""
    if trouble.life:
        with _jitter_of(seed):
            return lived(trouble, _provider(trouble, seed), "sync", with_penstock=with_penstock)
    clock = VirtualThreads()
    for at, span_s in trouble.holds:
        clock.call_at(at, lambda span_s=span_s: clock.hold(span_s))  # type: ignore[misc]
    provider = _provider(trouble, seed)
    wire = SyncWire(provider, clock)
    client = httpx2.Client(transport=wire, timeout=None)
    if with_penstock:
        client = Penstock(clock=clock, tracer=None).client(transport=wire, timeout=None)
    with _jitter_of(seed), mock.patch("penstock.runtime.slot.ThreadWaiter", clock.waiter):
        ends = program_sync(client, URL, clock, trouble.calls)
    ends.asked = provider.asked
    return ends


def sidecar(trouble: Trouble, *, with_penstock: bool, seed: int) -> Ends:
    """Play an async program whose base URL leads to a sidecar, over sockets."""

    async def play() -> Ends:
        _holds(trouble)
        provider = _provider(trouble, seed)
        async with served(provider) as url:
            running = Running(loads(SIDECAR.format(url=url), env={}))
            up = asyncio.Event()
            serving = asyncio.create_task(running.run(started=up.set, signals=False))
            await up.wait()
            base = f"http://127.0.0.1:{running.port}/v1" if with_penstock else url
            async with httpx2.AsyncClient(timeout=None) as client:
                ends = await program(client, f"{base}/chat/completions", trouble.calls)
            running.stop()
            await serving
        ends.asked = provider.asked
        return ends

    return _over_sockets(play(), seed)


def batch(trouble: Trouble, *, with_penstock: bool, seed: int) -> Ends:
    """Work a file off; without penstock, eight at a time, which is what the provider serves."""

    async def play(folder: Path) -> Ends:
        _holds(trouble)
        provider = _provider(trouble, seed)
        ends = Ends(trouble.calls)
        loop = asyncio.get_running_loop()

        async def one(client: httpx2.AsyncClient, url: str, number: int) -> None:
            async with room:
                good = await ask(client, f"{url}/chat/completions", number, trouble.calls)
            if good:
                ends.at[number] = loop.time()

        async with served(provider) as url:
            if with_penstock:
                await _run_batch(folder, url, trouble.calls.count)
                ends.at = _done(folder)
            else:
                room = asyncio.Semaphore(trouble.slots)
                async with httpx2.AsyncClient(timeout=None) as client:
                    await asyncio.gather(*(one(client, url, n) for n in range(trouble.calls.count)))
        ends.asked = provider.asked
        return ends

    with tempfile.TemporaryDirectory() as folder:
        return _over_sockets(play(Path(folder)), seed)


def _over_sockets(play: Coroutine[None, None, Ends], seed: int) -> Ends:
    with _jitter_of(seed):
        return run_virtual(asyncio.wait_for(play, LIMIT_S), grace_s=GRACE_S)


def _done(folder: Path) -> dict[int, float]:
    answers = (folder / "out.jsonl").read_bytes().splitlines()
    return {int(jsonio.loads(line)["custom_id"]): 0.0 for line in answers}


async def _run_batch(folder: Path, url: str, count: int) -> None:
    source = folder / "in.jsonl"
    lines = (
        {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body_of(number, streams=False),
        }
        for number in range(count)
    )
    source.write_bytes(b"".join(jsonio.dumps(line) + b"\n" for line in lines))
    penstock = _penstock(asyncio.get_running_loop())
    send = HttpSend(url, None, penstock)
    inspection = inspect(source)
    store = Checkpoint(
        folder / "check", folder / "out.jsonl", folder / "err.jsonl", inspection, now_unix_s=0.0
    )
    with store:
        batch = Batch(source, store, send, on_stop=penstock.drain)
        send.on_connection = batch.connected
        await batch.run()
    await send.close()
    penstock.close()


DOORS = {"async": in_process, "sync": threads, "sidecar": sidecar, "batch": batch}
