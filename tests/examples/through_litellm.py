"""Calls a provider through LiteLLM in every way of docs/how-to/litellm.md; prints what happened.

Runs in LiteLLM's own environment (`make setup-examples`), started by test_litellm.py.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import litellm
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler
from openai import AsyncOpenAI, OpenAI

import penstock
from penstock.core.events import Completed, Dispatch

URL = os.environ["PENSTOCK_EXAMPLE_URL"]
MESSAGES = [{"role": "user", "content": "What is a weir?"}]
OPENAI: dict[str, Any] = {"model": "openai/mock", "api_base": f"{URL}/v1", "api_key": "any"}
ANTHROPIC: dict[str, Any] = {"model": "anthropic/mock", "api_base": URL, "api_key": "any"}

settled: list[int | None] = []
classes: list[str] = []


def note_event(_now: float, event: object) -> None:
    if isinstance(event, Completed):
        settled.append(event.output_tokens)


def note_action(_now: float, action: object) -> None:
    if isinstance(action, Dispatch):
        classes.append(action.request.traffic_class)


def outcome(words: int) -> dict[str, Any]:
    """Return what one way did, and forget it."""
    flying = sum(state.in_flight for state in penstock.snapshot().values())
    found = {"said": words, "settled": settled[:], "classes": classes[:], "flying": flying}
    settled.clear()
    classes.clear()
    return found


async def ask(**words: Any) -> int:
    reply = await litellm.acompletion(messages=MESSAGES, max_tokens=9, **words)
    return int(reply.usage.completion_tokens)


async def stream(**words: Any) -> int:
    reply = await litellm.acompletion(messages=MESSAGES, max_tokens=9, stream=True, **words)
    return sum(1 for chunk in [each async for each in reply] if chunk.choices[0].delta.content)


def ask_sync(**words: Any) -> int:
    reply = litellm.completion(messages=MESSAGES, max_tokens=9, **words)
    return int(reply.usage.completion_tokens)


async def refused(**words: Any) -> str:
    """Return what LiteLLM raises for a call that may not wait any longer."""
    held = [penstock.sync_gate(URL.removeprefix("http://")).admit() for _ in range(WINDOW)]
    for each in held:
        await asyncio.to_thread(each.__enter__)
    try:
        with penstock.request(deadline_s=0.05):
            await ask(max_retries=0, num_retries=0, **words)
    except Exception as error:  # its name is the result
        return type(error).__name__
    finally:
        for each in held:
            each.__exit__(None, None, None)
    return "nothing"


WINDOW = 2


async def main() -> dict[str, Any]:
    stack = penstock.Stack(
        capacity=penstock.PolicySpec("fixed", {"window": WINDOW}),
        overload=penstock.PolicySpec("always_admit"),
    )
    hooks = penstock.Hooks(on_event=note_event, on_action=note_action)
    penstock.configure(stack=stack, observers=[hooks])
    found: dict[str, Any] = {}

    async def way(name: str, call: Callable[..., Awaitable[int]], **words: Any) -> None:
        with penstock.request(class_="batch"):
            found[name] = outcome(await call(**words))

    http_client = penstock.async_client()
    client = AsyncOpenAI(base_url=OPENAI["api_base"], api_key="any", http_client=http_client)
    await way("client", ask, client=client, **OPENAI)
    await way("client, streamed", stream, client=client, **OPENAI)

    litellm.aclient_session = penstock.async_client()
    litellm.client_session = penstock.client()
    await way("session", ask, **OPENAI)
    await way("session, streamed", stream, **OPENAI)

    handler = AsyncHTTPHandler()
    penstock.adopt(handler.client)
    await way("handler", ask, client=handler, **ANTHROPIC)
    await way("handler, streamed", stream, client=handler, **ANTHROPIC)

    found["refused"] = {"raised": await refused(client=client, **OPENAI)}
    outcome(0)
    return found


def main_sync() -> dict[str, Any]:
    found: dict[str, Any] = {}
    http_client = penstock.client()
    client = OpenAI(base_url=OPENAI["api_base"], api_key="any", http_client=http_client)
    handler = HTTPHandler()
    penstock.adopt(handler.client)
    with penstock.request(class_="batch"):
        found["client, sync"] = outcome(ask_sync(client=client, **OPENAI))
        found["session, sync"] = outcome(ask_sync(**OPENAI))
        found["handler, sync"] = outcome(ask_sync(client=handler, **ANTHROPIC))
    return found


if __name__ == "__main__":
    print(json.dumps({**asyncio.run(main()), **main_sync()}))
