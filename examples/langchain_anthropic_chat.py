"""LangChain with Anthropic: it makes its clients itself, so they are adopted.

Start a provider in another terminal: penstock mock
"""

import asyncio
import os

from langchain_anthropic import ChatAnthropic

import penstock

URL = os.environ.get("PENSTOCK_EXAMPLE_URL", "http://127.0.0.1:8001")
model = ChatAnthropic(model_name="mock", base_url=URL, api_key="any", max_tokens_to_sample=40)
penstock.adopt(model._client)  # noqa: SLF001 - ChatAnthropic takes no client of its user's
penstock.adopt(model._async_client)  # noqa: SLF001


async def main() -> None:
    """Ask four questions at once, and one by a sync call."""
    with penstock.request(class_="batch"):
        replies = await asyncio.gather(*(model.ainvoke(f"Question {n}?") for n in range(4)))
    print(f"{len(replies)} replies; the first: {str(replies[0].content)[:50]}...")
    print(f"and one by a sync call: {str(model.invoke('Another?').content)[:50]}...")
    (host,) = penstock.snapshot()
    print(f"all of them went through the scheduler for {host}")


if __name__ == "__main__":
    asyncio.run(main())
