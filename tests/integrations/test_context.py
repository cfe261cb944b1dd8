"""A block's wishes reach the calls inside it, across awaits and threads, and no others."""

import asyncio
import contextvars
import re
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

import penstock
from penstock.integrations import context
from penstock.integrations.context import CURRENT
from penstock.runtime.guarded import Guard
from tests.integrations.http.rig import assert_idle, penstock_with


@pytest.fixture
def inheriting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_switched", False)
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", ThreadPoolExecutor.submit)
    penstock.inherit_in_threads()
    penstock.inherit_in_threads()  # once is enough, twice is the same


def class_now() -> str | None:
    return CURRENT.get().traffic_class


def in_thread() -> list[str | None]:
    seen: list[str | None] = []
    thread = threading.Thread(target=lambda: seen.append(class_now()))
    thread.start()
    thread.join()
    return seen


def test_inner_blocks_override_outer_ones_and_end() -> None:
    with penstock.request(class_="batch", tenant="a"):
        with penstock.request(class_="interactive", deadline_s=3.0) as asked:
            assert (asked.traffic_class, asked.tenant, asked.deadline_s) == ("interactive", "a", 3)
        assert class_now() == "batch"
    assert class_now() is None


async def test_awaits_and_tasks_inherit() -> None:
    async def child() -> str | None:
        await asyncio.sleep(0)
        return class_now()

    with penstock.request(class_="batch"):
        task = asyncio.create_task(child())
        assert await asyncio.to_thread(class_now) == "batch"
    assert await task == "batch"
    assert await child() is None


def test_threads_are_left_alone_unless_the_program_asks() -> None:
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    with penstock.request(class_="batch"):
        assert in_thread() == [None]
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == (start, submit)


def test_threads_started_in_a_block_inherit(inheriting: None) -> None:
    with penstock.request(class_="batch"):
        assert in_thread() == ["batch"]
    assert in_thread() == [None]


def test_pool_jobs_inherit_from_their_submitter_not_from_the_worker(inheriting: None) -> None:
    with ThreadPoolExecutor(1) as pool:
        with penstock.request(class_="batch"):
            assert pool.submit(class_now).result() == "batch"  # starts the worker thread
            assert list(pool.map(lambda _: class_now(), range(3))) == ["batch"] * 3
        assert pool.submit(class_now).result() is None


async def test_jobs_of_a_loops_executor_inherit(inheriting: None) -> None:
    loop = asyncio.get_running_loop()
    with penstock.request(class_="batch"):
        assert await loop.run_in_executor(None, class_now) == "batch"
    assert await loop.run_in_executor(None, class_now) is None


def scheduled_call_in_a_thread(scheduled: penstock.Penstock) -> None:
    with scheduled.sync_gate().admit():
        pass


def test_a_call_in_a_thread_of_a_call_is_nested_where_threads_inherit(inheriting: None) -> None:
    scheduled = penstock_with(window=1)
    with scheduled.sync_gate().admit():
        thread = threading.Thread(target=scheduled_call_in_a_thread, args=(scheduled,))
        thread.start()
        thread.join()
    assert_idle(scheduled)


async def test_a_dependency_that_yields_in_a_block_sets_it_for_its_endpoint() -> None:
    """As FastAPI runs them: entered and left around the endpoint, in the request's task."""

    @asynccontextmanager
    async def for_reports() -> AsyncIterator[None]:
        with penstock.request(class_="batch"):
            yield

    async with AsyncExitStack() as dependencies:
        await dependencies.enter_async_context(for_reports())
        assert class_now() == "batch"
    assert class_now() is None


def test_a_block_that_is_left_in_another_context_ends_and_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Starlette runs a synchronous dependency: each half in a context of its own."""
    monkeypatch.setattr(context, "_GUARD", Guard())  # another test may have been told
    for _ in range(2):
        block = penstock.request(class_="batch")
        contextvars.copy_context().run(block.__enter__)
        contextvars.copy_context().run(block.__exit__, None, None, None)
    assert class_now() is None
    assert caplog.text.count("make it `async def`") == 1


def test_a_block_states_how_long_its_replies_will_be() -> None:
    with penstock.request(tokens=(40, 90)) as asked:
        assert asked.tokens == penstock.TokenEstimate(40, 90, "caller")
        with penstock.request(tokens=25) as inner:
            assert inner.tokens == penstock.TokenEstimate(25, 25, "caller")
        with penstock.request(class_="batch") as inner:
            assert inner.tokens == asked.tokens


@pytest.mark.parametrize("tokens", [0, -3, (90, 40), (1, 2, 3), "many", (4, float("inf"))])
def test_tokens_that_are_no_length_are_refused_with_the_value(tokens: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"tokens={tokens!r} is no length")) as caught:
        with penstock.request(tokens=tokens):
            pytest.fail("it cannot be entered")
    assert "a median and a 90th percentile" in str(caught.value)


def test_a_deadline_that_has_passed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"deadline_s=0"), penstock.request(deadline_s=0):
        pytest.fail("it cannot be entered")
