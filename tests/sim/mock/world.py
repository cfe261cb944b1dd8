"""Providers and bodies that the mock's tests share."""

import asyncio
from collections.abc import Callable
from typing import Any

QUICK = {"model": "slots", "slots": 64, "tokens_per_s": 1e6, "ttft_s": 0.0}
GLACIAL = {"model": "slots", "slots": 2, "tokens_per_s": 0.001, "ttft_s": 0.0}


def chat_body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "count to ten"}], **more}


async def eventually(holds: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Wait until it holds; the mock's clock is the wall's, and cannot be jumped from outside."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.005)
