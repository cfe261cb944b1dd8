"""A batch that goes out over HTTP, in virtual time: the provider is a function."""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2

from penstock import Penstock, PolicySpec, Stack
from penstock.batch.runner import Batch
from penstock.batch.sending import HttpSend
from tests.batch.files import checkpoint_of
from tests.virtual_loop import run_virtual

Provider = Callable[[httpx2.Request], Coroutine[None, None, httpx2.Response]]
REPLY = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ho"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 7},
}


def good() -> httpx2.Response:
    return httpx2.Response(200, json=REPLY)


def refusal(status: int, message: str, **headers: str) -> httpx2.Response:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, json={"error": {"message": message}}, headers=said)


def line_of(request: httpx2.Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.content)
    return body


def work(source: Path, provider: Provider, *, ahead: int = 64) -> tuple[Batch, float]:
    """Run the batch as the command does; return it, and how many seconds it took."""

    async def main() -> tuple[Batch, float]:
        loop = asyncio.get_running_loop()
        stack = Stack(overload=PolicySpec("always_admit"))
        scheduled = Penstock(
            default_class="batch", stack=stack, queue_ttl_s=0, clock=loop, tracer=None
        )
        transport = httpx2.MockTransport(provider)
        send = HttpSend("http://provider.example/v1", None, scheduled, transport=transport)
        with checkpoint_of(source) as store:
            batch = Batch(
                source, store, send, ahead=ahead, on_stop=scheduled.drain, chance=random.Random(3)
            )
            send.on_connection = batch.connected
            await batch.run()
        await send.close()
        scheduled.close()
        return batch, loop.time()

    return run_virtual(main())
