"""Stated token limits are a law at every door: no minute gets more input than was allowed."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock
from penstock import Penstock
from penstock.batch.lines import parse_line
from penstock.batch.sending import HttpSend
from penstock.calls.endpoint import CHAT, EMBEDDINGS, Endpoint
from penstock.core.events import Arrived, Dispatch
from penstock.core.settings import Limits, UpstreamSettings
from penstock.errors import Refused
from penstock.proxy.bodies import Held
from penstock.proxy.config import loads
from penstock.proxy.sidecar import Sidecar
from penstock.runtime.accounts import account_of
from tests.calls.doors import CLASS, DOORS, TOML, written
from tests.core.story import scheduler, upstream
from tests.integrations.http.rig import Tape

CALLS = 30
WORDS = "x" * 4000  # 1,000 tokens
LIMIT = 2100
BODIES: dict[str, tuple[Endpoint, dict[str, Any]]] = {
    "chat": (CHAT, {"model": "m", "messages": [{"content": WORDS}], "max_tokens": 1}),
    "embeddings": (EMBEDDINGS, {"model": "m", "input": WORDS}),
}
Call = Callable[[Endpoint, dict[str, Any]], Awaitable[object]]


async def never_answers(_request: Any) -> Any:
    await asyncio.Event().wait()


def program(tape: Tape) -> Penstock:
    limited = UpstreamSettings(limits=Limits(input_tokens_per_min=LIMIT))
    return Penstock(classes=(CLASS,), upstream=limited, observers=[tape], tracer=None)


def transport(library: Any) -> Callable[[Tape], Call]:
    def door(tape: Tape) -> Call:
        inner = library.MockTransport(never_answers)
        client = program(tape).async_client(library=library.__name__, transport=inner)
        return lambda endpoint, body: client.post("http://h" + endpoint.path, json=body)

    return door


def batch(tape: Tape) -> Call:
    scheduled = program(tape)
    send = HttpSend("http://h/v1", None, scheduled)
    inner = httpx2.MockTransport(never_answers)
    send._client = scheduled.async_client(library="httpx2", transport=inner)

    def call(endpoint: Endpoint, body: dict[str, Any]) -> Awaitable[object]:
        line = written({"custom_id": "a", "url": endpoint.path, "body": body})
        return send(parse_line(1, line), deadline_s=None)

    return call


def gate(tape: Tape) -> Call:
    scheduled = program(tape)

    async def call(endpoint: Endpoint, body: dict[str, Any]) -> None:
        async with scheduled.gate().admit(body=body, endpoint=endpoint.kind.value):
            await asyncio.Event().wait()

    return call


def decorator(tape: Tape) -> Call:
    @penstock.scheduled(penstock=program(tape), prompt=lambda _endpoint, _body: WORDS)
    async def call(_endpoint: Endpoint, _body: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    return call


def sidecar(tape: Tape) -> Call:
    limits = f'base_url = "http://h/v1"\nlimits = {{ input_tokens_per_min = {LIMIT} }}'
    parts = Sidecar(
        loads(TOML.replace('base_url = "http://h/v1"', limits), env={}), observers=[tape]
    )

    async def call(endpoint: Endpoint, body: dict[str, Any]) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

        headers = [(b"authorization", b"Bearer k")]
        prepared = await parts.reader.prepare(
            endpoint, headers, receive, Held(parts.room, account_of(headers))
        )
        async with parts.gate.admit(prepared.spec):
            await asyncio.Event().wait()

    return call


ASYNC_DOORS: dict[str, Callable[[Tape], Call]] = {
    "sidecar": sidecar,
    "httpx2": transport(httpx2),
    "httpx": transport(httpx),
    "batch": batch,
    "gate": gate,
    "decorator": decorator,
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("door", ASYNC_DOORS)
def test_of_thirty_calls_of_a_thousand_tokens_two_are_sent_at_once(door: str, name: str) -> None:
    tape = Tape()

    async def main() -> None:
        call = ASYNC_DOORS[door](tape)

        async def one() -> None:
            await call(*BODIES[name])

        tasks = [asyncio.create_task(one()) for _ in range(CALLS)]
        while len(tape.of(Arrived)) < CALLS:
            await asyncio.sleep(0.001)
            for task in tasks:
                assert not task.done(), task.result()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert len(tape.of(Arrived)) == CALLS
    assert len(tape.of(Dispatch)) == 2


@pytest.mark.parametrize("library", [httpx2, httpx], ids=lambda each: each.__name__)
def test_threads_keep_the_limit_as_well(library: Any) -> None:
    tape = Tape()
    answer = threading.Event()

    def provider(_request: Any) -> Any:
        answer.wait(60)
        return library.Response(200, json={"choices": [{"message": {}}], "content": []})

    scheduled = program(tape)
    client = scheduled.client(library=library.__name__, transport=library.MockTransport(provider))
    endpoint, body = BODIES["chat"]
    with ThreadPoolExecutor(CALLS) as pool:
        posts = [pool.submit(client.post, "http://h" + endpoint.path, json=body)
                 for _ in range(CALLS)]  # fmt: skip
        while len(tape.of(Arrived)) < CALLS:
            time.sleep(0.001)
        sent = len(tape.of(Dispatch))
        scheduled.drain()
        answer.set()
        for post in posts:
            assert isinstance(post.exception(), Refused | None)
    assert sent == 2


@given(
    door=st.sampled_from(sorted(DOORS)),
    chars=st.lists(st.integers(0, 20_000), min_size=1, max_size=6),
    limit=st.integers(100, 20_000),
)
@settings(deadline=None, max_examples=40)
def test_what_is_sent_at_once_is_within_the_limit(door: str, chars: list[int], limit: int) -> None:
    penstock_ = scheduler(upstream(window=99, limits=Limits(input_tokens_per_min=limit)))
    sent = 0
    for number, length in enumerate(chars, 1):
        body = {"model": "m", "messages": [{"role": "user", "content": "x" * length}]}
        request = DOORS[door](CHAT, body, {})
        request.id, request.traffic_class, request.arrived_at = number, "batch", 0.0
        assert request.prompt_tokens >= length // 4
        actions = penstock_.handle(Arrived(request), now=0.0)
        sent += sum(a.request.prompt_tokens for a in actions if isinstance(a, Dispatch))
    assert sent <= max(limit, max(chars) // 4 + 20)
