"""How long a reload holds up the traffic: a thousand of them, under load, in one process.

The pause is how long the event loop could do nothing else while a configuration was taken;
where other processes want the cores too, the loop's own CPU time tells more. Before that,
reading and checking the file happen in a thread. `python benchmarks/bench_reload.py [RELOADS]`.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from penstock.proxy.config import load
from penstock.proxy.server import Running
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer

CALLERS = 16
TOML = """
[server]
port = 0
[admin]
enabled = false
[predictor]
kind = "off"
[scheduler.capacity]
kind = "fixed"
window = {window}
[[upstreams]]
base_url = "{url}/v1"
auth = "none"
"""
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


async def main(reloads: int) -> None:
    provider = {"model": "slots", "slots": 64, "tokens_per_s": 5000.0, "ttft_s": 0.002}
    with MockServer(MockSettings(provider=provider)) as mock, tempfile.TemporaryDirectory() as at:
        path = Path(at) / "penstock.toml"
        path.write_text(TOML.format(window=8, url=mock.url))
        running = Running(load(path), lambda: load(path))
        up = asyncio.Event()
        served = asyncio.create_task(running.run(started=up.set, signals=False))
        await up.wait()
        statuses: dict[int, int] = {}
        stop = False

        async def caller(session: aiohttp.ClientSession) -> None:
            url = f"http://127.0.0.1:{running.port}/v1/chat/completions"
            headers = {"x-mock-output-tokens": "20"}
            while not stop:
                async with session.post(url, json=HELLO, headers=headers) as reply:
                    await reply.read()
                    statuses[reply.status] = statuses.get(reply.status, 0) + 1

        pauses: list[float] = []
        busy: list[float] = []
        take = running.reloader.take

        def timed(loaded: object) -> None:
            began, cpu = time.perf_counter(), time.thread_time()
            take(loaded)  # type: ignore[arg-type]
            pauses.append(time.perf_counter() - began)
            busy.append(time.thread_time() - cpu)

        running.reloader.take = timed
        async with aiohttp.ClientSession() as session:
            callers = [asyncio.create_task(caller(session)) for _ in range(CALLERS)]
            for number in range(reloads):
                path.write_text(TOML.format(window=8 + number % 2, url=mock.url))
                outcome = await running.reloader.reload()
                assert not outcome.refused, outcome.refused
            stop = True
            await asyncio.gather(*callers)
        running.stop()
        await served
    print(f"{len(pauses)} reloads beside {sum(statuses.values())} requests, by status: {statuses}")
    for name, q in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0)):
        wall, cpu = 1000 * quantile(pauses, q), 1000 * quantile(busy, q)
        print(f"pause {name}: {wall:.2f} ms, of which CPU {cpu:.2f} ms")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
