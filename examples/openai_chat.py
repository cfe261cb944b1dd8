"""OpenAI's SDK: interactive calls before batch calls, in one program.

Start a provider in another terminal: penstock mock
"""

import asyncio
import os
import time

from openai import AsyncOpenAI

import penstock

URL = os.environ.get("PENSTOCK_EXAMPLE_URL", "http://127.0.0.1:8001")
# The mock can do 8 things at once. Left out, penstock finds that by itself within some dozens of
# replies; a program that has just started does not know it yet.
penstock.configure(
    upstream=penstock.UpstreamSettings(capacity=penstock.PolicySpec("fixed", {"window": 8}))
)
client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="any", http_client=penstock.async_client())


async def ask(question: str, max_tokens: int) -> str:
    """Ask one question."""
    reply = await client.chat.completions.create(
        model="mock",
        messages=[{"role": "user", "content": question}],
        max_tokens=max_tokens,
    )
    return reply.choices[0].message.content or ""


async def report(number: int) -> None:
    """A long call that can wait."""
    with penstock.request(class_="batch", deadline_s=120, tenant="reports"):
        await ask(f"Write report {number}.", max_tokens=300)


async def main() -> None:
    """Send 30 reports at once, and then a question that will not wait for them."""
    reports = [asyncio.create_task(report(number)) for number in range(30)]
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    answer = await ask("What is a penstock?", max_tokens=30)
    print(f"answered in {time.perf_counter() - began:.2f} s: {answer[:40]}...")
    print(f"reports done by then: {sum(task.done() for task in reports)} of {len(reports)}")
    for task in reports:
        task.cancel()
    await asyncio.gather(*reports, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
