"""No HTTP client to pass in? The gate and the decorator schedule any function.

Start a provider in another terminal: penstock mock
"""

import asyncio
import json
import os
import urllib.request
from typing import Any

import penstock

URL = os.environ.get("PENSTOCK_EXAMPLE_URL", "http://127.0.0.1:8001")


def post(prompt: str, max_tokens: int) -> dict[str, Any]:
    """Call the API by hand."""
    body = {"model": "mock", "max_tokens": max_tokens}
    body |= {"messages": [{"role": "user", "content": prompt}]}
    request = urllib.request.Request(
        f"{URL}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        reply: dict[str, Any] = json.load(response)
        return reply


@penstock.scheduled(
    class_="batch",
    max_tokens=30,
    usage=lambda reply: penstock.Usage(reply["usage"]["completion_tokens"]),
)
def summary(text: str) -> dict[str, Any]:
    """A function that waits for its turn each time it is called."""
    return post(f"Summarise: {text}", max_tokens=30)


async def main() -> None:
    """Use the gate in a coroutine, and the decorated function in threads."""
    async with penstock.gate().admit(prompt="What is a weir?", max_tokens=20) as slot:
        reply = await asyncio.to_thread(post, "What is a weir?", 20)
        slot.settle(penstock.Usage(reply["usage"]["completion_tokens"]))
    print(f"{slot.id} waited {slot.queued_s:.3f} s")
    replies = await asyncio.gather(*(asyncio.to_thread(summary, f"text {n}") for n in range(4)))
    print(f"{len(replies)} summaries")


if __name__ == "__main__":
    asyncio.run(main())
