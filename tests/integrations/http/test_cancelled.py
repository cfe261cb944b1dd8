"""Thousands of cancelled calls, over real sockets and through the gate, leave nothing behind."""

import asyncio
import gc
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import httpx2
import pytest

from penstock import Penstock
from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Dispatch,
    DriverStalled,
    Event,
    FirstToken,
    Throttled,
)
from penstock.runtime.clock import ThreadClock, Timer
from tests.conftest import LONG
from tests.integrations.http.rig import BODY, CHAT, assert_idle, penstock_with, scripted
from tests.listening import listening

WINDOW = 8
CROWD = 40
CALLS = 10_000 if LONG else 2_000
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
WHOLE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
SAID = {
    "before the headers": b"",
    "in the body": WHOLE_HEAD + b"{",
    "in the stream": STREAM_HEAD + CHUNK,
}
"""What the provider says before it falls silent, by where the call is to be cancelled."""


class Provider:
    """Reads a request, says its part and waits until the client hangs up."""

    def __init__(self) -> None:
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                body = json.loads(await reader.readexactly(int(length)))
                writer.write(SAID[body["user"]])
        finally:  # the client hung up: that is what it is here for
            self.open -= 1


@asynccontextmanager
async def provider() -> AsyncIterator[tuple[Provider, str]]:
    scripted = Provider()
    async with listening(scripted.serve) as port:
        yield scripted, f"http://127.0.0.1:{port}/v1/chat/completions"


class Stages:
    """An observer that counts how far each request had come when it was cancelled."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.refused = 0
        self._now: dict[int, str] = {}

    def event(self, now: float, event: Event) -> None:
        match event:
            case Arrived(request):
                self._now[request.id] = "queued"
            case FirstToken(request_id):
                self._now[request_id] = "in the stream"
            case Throttled(request_id):
                self._now[request_id] = "in the back-off"
                self.refused += 1
            case Cancelled(request_id):
                self.counts[self._now.pop(request_id)] += 1
            case DriverStalled():
                pass  # by a busy machine
            case _:
                raise AssertionError(f"{event} in a crowd of which every call is cancelled")

    def action(self, now: float, action: Action) -> None:
        if isinstance(action, Dispatch):
            self._now[action.request.id] = "sent"


class MovedClock(ThreadClock):
    """The real clock, moved on by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.moved_s = 0.0

    def time(self) -> float:
        return super().time() + self.moved_s

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        return super().call_at(when - self.moved_s, callback)


def held_by(root: Any) -> int:
    """Count what can be reached from an object: all its registries with all their entries."""
    gc.collect()
    seen = {id(root): root}
    todo = [root]
    while todo:
        for each in gc.get_referents(todo.pop()):
            shared = isinstance(each, type | ModuleType | FunctionType | BuiltinFunctionType)
            loop = isinstance(each, asyncio.AbstractEventLoop)
            if not shared and not loop and id(each) not in seen:
                seen[id(each)] = each
                todo.append(each)
    return len(seen)


Caller = Callable[[int], Awaitable[object]]


async def crowds(calls: int, one: Caller, chance: random.Random) -> None:
    """Start calls in crowds larger than the window; cancel each at a random turn of the loop."""
    for first in range(0, calls, CROWD):
        tasks = [asyncio.ensure_future(one(first + each)) for each in range(CROWD)]
        for _ in range(chance.choice([1, 2, 5, 20])):
            await asyncio.sleep(0)
        for each in chance.sample(tasks, CROWD):
            each.cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(0)  # whoever is let through now gets some way
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}


async def assert_nothing_grows(scheduled: Penstock, clock: MovedClock, one: Caller) -> None:
    """Cancel them all; what is held after the first tenth is what is held after all."""
    chance = random.Random(6)
    held = []
    for calls in (CALLS // 10, CALLS - CALLS // 10):
        await crowds(calls - CROWD, one, chance)
        clock.moved_s += 61.0  # what is counted by the minute is let go by the next arrivals
        await crowds(CROWD, one, chance)
        held.append(held_by(scheduled))
    assert held[1] <= held[0]
    assert_idle(scheduled)
    (name,) = scheduled.snapshot()
    assert scheduled.outlet(name).driver.in_hand == 0


@pytest.mark.slow
async def test_thousands_of_cancelled_calls_leak_no_slot_no_connection_no_task() -> None:
    stages, clock = Stages(), MovedClock()
    scheduled = penstock_with(WINDOW, stages, clock=clock)
    patient = scheduled.async_client(timeout=None)  # a busy machine is no end of a call
    async with provider() as (upstream, url), patient as client:

        async def one(number: int) -> None:
            content = json.dumps({**BODY, "user": list(SAID)[number % 3]}).encode()
            async with client.stream("POST", url, content=content) as response:
                async for _ in response.aiter_raw():
                    pass

        await assert_nothing_grows(scheduled, clock, one)
        assert client._transport._inner._pool.connections == []
        async with asyncio.timeout(60):
            while upstream.open or len(asyncio.all_tasks()) > 1:  # it has to hear of the last ones
                await asyncio.sleep(0.001)
    assert stages.counts.total() == CALLS
    assert min(stages.counts.values()) > CALLS // 100, "a window that was hardly tried"


async def test_calls_cancelled_in_the_back_off_leak_nothing() -> None:
    stages = Stages()
    scheduled = penstock_with(WINDOW, stages)

    async def refusing(_request: Any) -> httpx2.Response:
        await asyncio.sleep(0)
        return httpx2.Response(429, headers={"retry-after": "20"}, content=b"{}")

    async with scripted(httpx2, scheduled, refusing) as client:
        calls = [asyncio.ensure_future(client.post(CHAT, json=BODY)) for _ in range(CROWD)]
        while stages.refused < WINDOW:
            await asyncio.sleep(0)
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert_idle(scheduled)
    assert stages.counts["in the back-off"] == WINDOW
    assert stages.counts["sent"] <= 1  # the first refusal binds its own call, and one more may show
    assert stages.counts.total() == CROWD


async def test_thousands_of_cancelled_admissions_leak_no_slot_and_no_task() -> None:
    stages, clock = Stages(), MovedClock()
    scheduled = penstock_with(WINDOW, stages, clock=clock)
    gate = scheduled.gate()

    async def one(number: int) -> None:
        async with gate.admit(max_tokens=50) as slot:
            if number % 3:
                await asyncio.sleep(0)
                slot.first_token()
            await asyncio.Event().wait()

    await assert_nothing_grows(scheduled, clock, one)
    assert len(asyncio.all_tasks()) == 1
    assert stages.counts.total() == CALLS
    assert min(stages.counts.values()) > CALLS // 10, "a window that was hardly tried"
