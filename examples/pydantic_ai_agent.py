"""Pydantic AI: an agent whose model calls are scheduled.

Start a provider in another terminal: penstock mock
"""

import asyncio
import os

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

import penstock

URL = os.environ.get("PENSTOCK_EXAMPLE_URL", "http://127.0.0.1:8001")
provider = OpenAIProvider(base_url=f"{URL}/v1", api_key="any", http_client=penstock.async_client())
agent = Agent(
    OpenAIChatModel("mock", provider=provider), model_settings=ModelSettings(max_tokens=40)
)


async def main() -> None:
    """Run the agent five times at once, for one tenant."""
    with penstock.request(tenant="agents", deadline_s=60):
        results = await asyncio.gather(*(agent.run(f"Task {n}") for n in range(5)))
    print(f"{len(results)} runs; the first said: {results[0].output[:50]}...")


if __name__ == "__main__":
    asyncio.run(main())
