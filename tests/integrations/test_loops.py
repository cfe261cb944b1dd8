"""Event loops that close, and calls that would block one."""

import asyncio
import contextvars
import json
import threading
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

import penstock
from penstock import Refused, RequestSpec
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    REPLY,
    assert_idle,
    only,
    penstock_with,
    scripted,
    scripted_sync,
)


def test_slots_of_a_closed_loop_are_given_back_to_whoever_waits() -> None:
    scheduled = penstock_with(window=2)
    kept = []

    async def leave() -> None:
        kept.extend([await scheduled.gate().enter(RequestSpec()) for _ in range(2)])

    async def come() -> None:
        async with asyncio.timeout(60), scheduled.gate().admit():
            pass

    asyncio.run(leave())
    assert only(scheduled).in_flight == 2
    asyncio.run(come())
    for slot in kept:
        slot.cancel()  # as a finaliser does, late: harmless
    assert_idle(scheduled)


def test_slots_of_a_closed_loop_are_given_back_to_threads_too() -> None:
    scheduled = penstock_with(window=1)

    async def leave() -> Any:
        return await scheduled.gate().enter(RequestSpec())

    slot = asyncio.run(leave())
    with scheduled.sync_gate().admit(expires_in_s=60.0):
        pass
    slot.cancel()
    assert_idle(scheduled)


async def test_a_blocking_wait_for_this_very_loops_calls_is_refused_in_words() -> None:
    scheduled = penstock_with(window=1)
    async with scheduled.gate().admit():
        await asyncio.create_task(refused_in_words(scheduled), context=contextvars.Context())
    assert_idle(scheduled)


async def refused_in_words(scheduled: penstock.Penstock) -> None:
    with pytest.raises(Refused, match="to_thread") as refused:
        scheduled.sync_gate().enter(RequestSpec())
    assert refused.value.reason == "blocked_loop"
    assert refused.value.retry_after_s is None


@pytest.mark.parametrize("library", [httpx2, httpx], ids=lambda each: each.__name__)
async def test_the_sync_transport_says_so_too(library: Any) -> None:
    scheduled = penstock_with(window=1)
    going, ended = asyncio.Event(), asyncio.Event()

    async def slow(_request: Any) -> Any:
        going.set()
        await ended.wait()
        return library.Response(200, json=REPLY)

    async_client = scripted(library, scheduled, slow)
    flying = asyncio.create_task(async_client.post(CHAT, json=BODY))
    await going.wait()
    client = scripted_sync(library, scheduled, lambda _request: library.Response(200, json=REPLY))
    answer = client.post(CHAT, json=BODY)
    assert answer.status_code == 503
    assert answer.headers["x-should-retry"] == "false"
    assert "asyncio.to_thread" in json.dumps(answer.json())
    ended.set()
    assert (await flying).status_code == 200
    assert_idle(scheduled)


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
async def test_the_sdks_raise_it_at_once(sdk: str) -> None:
    scheduled = penstock_with(window=1)
    http_client = scripted_sync(httpx2, scheduled, lambda _request: None)
    hello: Any = [{"role": "user", "content": "hi"}]

    def ask() -> None:
        if sdk == "openai":
            client = openai.OpenAI(api_key="k", base_url="https://m/v1", http_client=http_client)
            client.chat.completions.create(model="m", messages=hello)
        else:
            other = anthropic.Anthropic(api_key="k", base_url="https://m", http_client=http_client)
            other.messages.create(model="m", messages=hello, max_tokens=5)

    async def in_another_task() -> None:
        with pytest.raises(Refused, match="to_thread"):
            ask()

    async with scheduled.gate("m").admit():
        await asyncio.create_task(in_another_task(), context=contextvars.Context())


async def test_a_blocking_call_that_need_not_wait_goes_through_as_in_a_notebook() -> None:
    scheduled = penstock_with(window=2)
    async with scheduled.gate().admit():
        with scheduled.sync_gate().admit():
            pass
    assert_idle(scheduled)


async def test_a_blocking_call_may_wait_for_other_threads() -> None:
    scheduled = penstock_with(window=1)
    held, waits = threading.Event(), threading.Event()

    def other() -> None:
        with scheduled.sync_gate().admit():
            held.set()
            while not only(scheduled).waiting:
                waits.wait(0.001)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    with scheduled.sync_gate().admit():
        pass
    thread.join()
    assert_idle(scheduled)
