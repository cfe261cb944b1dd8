"""LiteLLM: give its OpenAI route a client that is scheduled.

Start a provider in another terminal: penstock mock
"""

import asyncio
import os

import litellm
from openai import AsyncOpenAI

import penstock

URL = os.environ.get("PENSTOCK_EXAMPLE_URL", "http://127.0.0.1:8001")
http_client = penstock.async_client()
client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="any", http_client=http_client)


async def ask(number: int) -> int:
    """Return how many tokens the answer had."""
    reply = await litellm.acompletion(
        model="openai/mock",
        messages=[{"role": "user", "content": f"Question {number}?"}],
        max_tokens=40,
        client=client,
    )
    return int(reply.usage.completion_tokens)


async def main() -> None:
    """Ask six questions at once, in the background class."""
    with penstock.request(class_="batch", tenant="quiz"):
        tokens = await asyncio.gather(*(ask(number) for number in range(6)))
    (host,) = penstock.snapshot()
    print(f"{len(tokens)} answers, {sum(tokens)} tokens, scheduled for {host}")


if __name__ == "__main__":
    asyncio.run(main())
