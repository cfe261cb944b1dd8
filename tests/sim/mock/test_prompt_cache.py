"""What a provider has cached of a prompt stands in each usage; engines batch over HTTP."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import orjson
import pytest

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer

CACHING = {
    "model": "batching",
    "iteration_base_s": 0.001,
    "iteration_per_seq_s": 0.0,
    "prefill_tokens_per_s": 1e6,
    "cached_share": 1.0,
}
PROMPT = "word " * 1000
CHAT = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}


@pytest.fixture(scope="module")
def caching() -> Iterator[MockServer]:
    with MockServer(MockSettings(CACHING, tick_s=0.001)) as server:
        yield server


def answer(server: MockServer, path: str, body: dict[str, Any]) -> httpx2.Response:
    headers = {"x-mock-output-tokens": "3"}
    found = httpx2.post(f"{server.url}{path}", json=body, headers=headers, timeout=30)
    assert found.status_code == 200, found.text
    return found


def events(found: httpx2.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in found.text.splitlines() if "data: " in line]
    return [orjson.loads(line) for line in lines if line != "[DONE]"]


def test_a_chat_completion_states_it(caching: MockServer) -> None:
    usage = answer(caching, "/v1/chat/completions", CHAT).json()["usage"]

    assert usage["prompt_tokens"] == 1000
    assert usage["prompt_tokens_details"]["cached_tokens"] == 950


def test_a_streamed_chat_completion_states_it(caching: MockServer) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}

    usage = events(answer(caching, "/v1/chat/completions", body))[-1]["usage"]

    assert usage["prompt_tokens_details"]["cached_tokens"] == 950


def test_a_response_states_it(caching: MockServer) -> None:
    usage = answer(caching, "/v1/responses", {"model": "m", "input": PROMPT}).json()["usage"]

    assert (usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]) == (1000, 950)


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_counts_it_apart_from_its_input(caching: MockServer, stream: bool) -> None:
    found = answer(caching, "/v1/messages", {**CHAT, "max_tokens": 10, "stream": stream})

    usage = events(found)[0]["message"]["usage"] if stream else found.json()["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (50, 950)


async def test_an_engine_serves_a_batch_over_http_and_states_its_load() -> None:
    # Slow enough that all eight are there before the first is done, on a busy machine too.
    slow = {**CACHING, "iteration_base_s": 0.02}
    async with (
        MockServer(MockSettings(slow, tick_s=0.001)) as caching,
        httpx2.AsyncClient(base_url=caching.url, timeout=30) as client,
    ):
        sent = [
            client.post(
                "/v1/chat/completions", json=CHAT, headers={"x-mock-output-tokens": str(40 + n)}
            )
            for n in range(8)
        ]
        replies = [found.json() for found in await asyncio.gather(*sent)]

        stats = caching.stats()
    assert [r["usage"]["completion_tokens"] for r in replies] == [40 + n for n in range(8)]
    assert stats["provider_peak_active"] > 1
    assert stats["provider_active"] == 0


def test_a_silent_limit_answers_429_without_a_header_that_says_so() -> None:
    table = {"model": "slots", "limits": {"rpm": 1, "burst_s": 1.0, "silent": True}}
    with MockServer(MockSettings(table, tick_s=0.001)) as server:
        headers = {"x-mock-output-tokens": "0"}
        first, second = (
            httpx2.post(f"{server.url}/v1/chat/completions", json=CHAT, headers=headers)
            for _ in range(2)
        )

    assert (first.status_code, second.status_code) == (200, 429)
    for found in (first, second):
        assert not [name for name in found.headers if "limit" in name or "retry" in name]
