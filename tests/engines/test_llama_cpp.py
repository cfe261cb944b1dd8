"""A server that nobody here wrote: llama.cpp's own, with a random model, behind penstock.

Its pace is the machine's, so nothing here depends on it: calls, tokens and places are counted.
"""

import asyncio
from collections.abc import Iterator

import httpx2
import pytest

import penstock
from benchmarks.engines.arms import arm
from benchmarks.engines.engine import PYTHON, Engine, Inside, llama_cpp
from benchmarks.engines.load import KINDS, draw
from benchmarks.engines.play import Pace, Played, play_slice
from penstock.metrics import RequestOutcome

pytestmark = [
    pytest.mark.slow,  # an engine on two cores
    pytest.mark.skipif(not PYTHON.exists(), reason="make setup-engines installs the engine"),
]
SLOTS = 4
CALLS = 60
NO_HURRY = Pace(1.0, {kind.name: 1e6 for kind in KINDS})


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with llama_cpp(SLOTS, layers=2, width=256) as engine:
        yield engine


async def crowd(engine: Engine, name: str) -> Played:
    """Send all calls within a moment; return what became of them."""
    played = Played()
    calls = draw(CALLS, rate_per_s=1e6, streamed=0.5, seed="crowd")
    async with arm(name, engine) as way:
        await play_slice(engine, way, calls, NO_HURRY, played, name)
        if way.scheduler is not None:
            (state,) = way.scheduler.snapshot().values()
            assert (state.in_flight, state.waiting, state.deferred) == (0, 0, 0)
    return played


@pytest.mark.parametrize("name", ["direct", "penstock told", "penstock", "sidecar"])
async def test_each_call_of_a_crowd_has_its_whole_reply(engine: Engine, name: str) -> None:
    played = await crowd(engine, name)

    assert [record.outcome for record in played.every] == [RequestOutcome.COMPLETED] * CALLS
    assert played.wrong_length == 0


async def test_a_window_that_is_not_told_does_not_stay_at_one(engine: Engine) -> None:
    played = await crowd(engine, "penstock")

    second_half_with_others_waiting = played.in_flight[CALLS // 2 : -SLOTS]
    assert max(second_half_with_others_waiting) > 1


async def test_callers_who_leave_in_mid_stream_leave_no_place_taken(engine: Engine) -> None:
    body = {
        "model": engine.model,
        "messages": [{"role": "user", "content": "kabo lina"}],
        "max_tokens": 1500,
        "ignore_eos": True,
        "stream": True,
    }
    async with arm("penstock told", engine) as way:
        begun = asyncio.Semaphore(0)

        async def leaving() -> None:
            async with way.client.stream(
                "POST", f"{engine.url}/v1/chat/completions", json=body
            ) as reply:
                async for _ in reply.aiter_lines():
                    begun.release()
                    await asyncio.Event().wait()

        callers = [asyncio.create_task(leaving()) for _ in range(2 * SLOTS)]
        for _ in range(SLOTS):
            await begun.acquire()
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

        assert way.scheduler is not None
        (state,) = way.scheduler.snapshot().values()
        assert (state.in_flight, state.waiting) == (0, 0)
        async with httpx2.AsyncClient() as client:
            while await engine.inside(client) != Inside(0, 0):
                await asyncio.sleep(0.05)
        with penstock.request(class_="batch"):
            answer = await way.client.post(
                f"{engine.url}/v1/chat/completions", json={**body, "max_tokens": 5, "stream": False}
            )
        assert answer.json()["usage"]["completion_tokens"] == 5
