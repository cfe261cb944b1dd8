"""Calls inside calls come to an end at any window, through every door."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

import penstock
from penstock import Penstock
from penstock.core.events import Completed, Dispatch
from penstock.log.explain import explain
from penstock.log.reader import read_log
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    REPLY,
    USAGE,
    Tape,
    assert_idle,
    penstock_with,
    scripted,
    scripted_sync,
    sse,
    token,
)

LIBRARIES = pytest.mark.parametrize("library", [httpx2, httpx], ids=lambda each: each.__name__)
PIPELINES, PIECES = 40, 3


def provider(library: Any) -> Any:
    class Body(library.AsyncByteStream, library.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield from (sse(token(str(n))) for n in range(PIECES))
            yield sse(USAGE, "[DONE]")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in self:
                yield piece

    def answer(request: Any) -> Any:
        if b'"stream"' in request.content.replace(b" ", b""):
            return library.Response(
                200, headers={"content-type": "text/event-stream"}, stream=Body()
            )
        return library.Response(200, json=REPLY)

    return answer


@LIBRARIES
@pytest.mark.parametrize("window", [1, 4])
async def test_a_call_for_each_streamed_piece(library: Any, window: int) -> None:
    tape = Tape()
    scheduled = penstock_with(window, tape)
    client = scripted(library, scheduled, provider(library))

    async def pipeline() -> None:
        async with client.stream("POST", CHAT, json={**BODY, "stream": True}) as reply:
            async for _piece in reply.aiter_raw():
                assert (await client.post(CHAT, json=BODY)).status_code == 200

    async with asyncio.timeout(100):
        await asyncio.gather(*(pipeline() for _ in range(PIPELINES)))
    assert len(tape.of(Completed)) == PIPELINES * (1 + PIECES + 1)
    assert_idle(scheduled)


@LIBRARIES
def test_a_call_for_each_streamed_piece_in_threads(library: Any) -> None:
    tape = Tape()
    scheduled = penstock_with(2, tape)
    client = scripted_sync(library, scheduled, provider(library))

    def pipeline(_number: int) -> None:
        with client.stream("POST", CHAT, json={**BODY, "stream": True}) as reply:
            for _piece in reply.iter_raw():
                assert client.post(CHAT, json=BODY).status_code == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(pipeline, range(PIPELINES)))
    assert len(tape.of(Completed)) == PIPELINES * (1 + PIECES + 1)
    assert_idle(scheduled)


def tree(scheduled: Penstock) -> Any:
    @penstock.scheduled(penstock=scheduled)
    async def leaf() -> int:
        await asyncio.sleep(0)
        return 1

    @penstock.scheduled(penstock=scheduled)
    async def branch() -> int:
        return sum(await asyncio.gather(*(leaf() for _ in range(3))))

    @penstock.scheduled(penstock=scheduled)
    async def root() -> int:
        return sum(await asyncio.gather(*(branch() for _ in range(3))))

    return root


@pytest.mark.parametrize("window", [1, 2, 5])
async def test_scheduled_functions_that_call_each_other(window: int) -> None:
    scheduled = penstock_with(window)
    root = tree(scheduled)
    async with asyncio.timeout(100):
        assert await asyncio.gather(*(root() for _ in range(10))) == [9] * 10
    assert_idle(scheduled)


def test_scheduled_functions_that_call_each_other_in_a_thread() -> None:
    scheduled = penstock_with(1)

    @penstock.scheduled(penstock=scheduled)
    def inner() -> int:
        return 1

    @penstock.scheduled(penstock=scheduled)
    def outer() -> int:
        return inner() + inner()

    assert outer() == 2
    assert_idle(scheduled)


async def test_what_a_thread_of_the_tasks_own_asks_for_is_nested_too() -> None:
    scheduled = penstock_with(1)

    def ask() -> bool:
        with scheduled.sync_gate().admit():
            return True

    async with scheduled.gate().admit():
        assert await asyncio.to_thread(ask)
        assert ask()  # blocking, but at once: it goes in this block's place
    assert_idle(scheduled)


async def test_the_log_names_the_call_that_another_is_made_inside() -> None:
    tape = Tape()
    scheduled = penstock_with(1, tape)
    async with scheduled.gate().admit() as outer, scheduled.gate().admit() as inner:
        assert inner.request.inside == outer.request.id
    async with scheduled.gate().admit() as after:
        assert after.request.inside is None
    assert [each.request.id for each in tape.of(Dispatch)] == [
        outer.request.id,
        inner.request.id,
        after.request.id,
    ]


async def test_a_slot_is_nested_in_what_is_held_when_it_is_entered() -> None:
    scheduled = penstock_with(1)
    inner, after = scheduled.gate().admit(), scheduled.sync_gate().admit()
    async with asyncio.timeout(60), scheduled.gate().admit(), inner:
        pass
    with after:
        assert after.request.inside is None
    assert_idle(scheduled)


async def test_explain_says_what_a_call_was_made_inside(tmp_path: Path) -> None:
    log = tmp_path / "d.jsonl"
    with Penstock(decision_log=log, tracer=None) as scheduled:
        async with scheduled.gate().admit() as outer, scheduled.gate().admit() as inner:
            pass
    story = explain(read_log(log), inner.id)
    assert f"Made inside {outer.id}, in whose place it may go." in story
