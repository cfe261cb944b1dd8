"""The ways to send a call: as it is, behind a semaphore, through penstock."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

import penstock
from benchmarks.engines.engine import Engine
from benchmarks.engines.load import Call
from penstock import Penstock
from penstock.experiments.demo.run import sidecar

GUESS = 16
"""What programs give a semaphore whose authors know nothing of the provider."""
NAMES = ("direct", "semaphore told", f"semaphore {GUESS}", "penstock told", "penstock", "sidecar")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way.

    Attributes:
        client: an httpx2 client.
        limit: entered around each call.
        scheduler: in this process; None where there is none.

    """

    name: str
    url: str
    client: Any
    limit: AbstractAsyncContextManager[Any]
    scheduler: Penstock | None = None

    def window(self) -> float | None:
        """Return how many calls may be in flight now; None where that cannot be seen."""
        found = self.scheduler.snapshot() if self.scheduler is not None else {}
        windows = [up.window for state in found.values() for up in state.upstreams.values()]
        return windows[0] if windows else None

    def in_flight(self) -> int:
        """Return how many calls the scheduler in this process has in flight; 0 without one."""
        found = self.scheduler.snapshot() if self.scheduler is not None else {}
        return sum(state.in_flight for state in found.values())

    async def send(self, call: Call, model: str, prompt: str, deadline_s: float) -> int | None:
        """Send one call, read all of its reply; return how many tokens it had.

        None if it was refused. The length counts from the reply's own usage.
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": call.output_tokens,
            "ignore_eos": True,
            "stream": call.stream,
            **({"stream_options": {"include_usage": True}} if call.stream else {}),
        }
        # The sidecar is told by a header and knows the class from `max_tokens`.
        headers = {"x-penstock-deadline-ms": f"{1000 * deadline_s:.0f}"}
        async with self.limit:
            with penstock.request(class_=call.kind.name, deadline_s=deadline_s):
                reply = await self.client.post(
                    f"{self.url}/v1/chat/completions", json=body, headers=headers
                )
        if reply.status_code != 200:
            return None
        return usage_of(reply.text, stream=call.stream)


def usage_of(text: str, *, stream: bool) -> int:
    """Return the tokens that a whole reply says it has."""
    if not stream:
        return int(json.loads(text)["usage"]["completion_tokens"])
    events = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    (usage,) = [found for each in events if (found := json.loads(each).get("usage"))]
    return int(usage["completion_tokens"])


@asynccontextmanager
async def arm(name: str, engine: Engine, log: Path | None = None) -> AsyncIterator[Arm]:
    """Make the arm of that name; what it learns is gone with the block.

    Args:
        name: one of `NAMES`.
        engine: where the calls go.
        log: penstock's decision log; a program's has the host's name in its own.

    """
    # No limit of connections and no timeout of the client stands in for a queue. Each call has a
    # connection of its own: llama.cpp closes one after 100 replies, unannounced after a stream.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    free: dict[str, Any] = {"timeout": None, "limits": limits}
    if name in ("penstock", "penstock told"):
        capacity = penstock.PolicySpec("fixed", {"window": engine.slots})
        upstream = penstock.UpstreamSettings(capacity=capacity) if name.endswith("told") else None
        with Penstock(upstream=upstream, decision_log=log) as scheduler:
            async with scheduler.async_client(**free) as client:
                yield Arm(name, engine.url, client, nullcontext(), scheduler)
    elif name == "sidecar":
        with tempfile.TemporaryDirectory(prefix="penstock-engines-") as folder:
            more = {} if log is None else {"log": {"decisions_path": str(log)}}
            with sidecar(engine.url, more, Path(folder)) as url:
                async with httpx2.AsyncClient(**free) as client:
                    yield Arm(name, url, client, nullcontext())
    else:
        sizes = {"semaphore told": engine.slots, f"semaphore {GUESS}": GUESS}
        limit: Any = asyncio.Semaphore(sizes[name]) if name in sizes else nullcontext()
        async with httpx2.AsyncClient(**free) as client:
            yield Arm(name, engine.url, client, limit)
