"""The transports for threads: real threads on real sockets, in time that passes faster."""

import asyncio
import gc
import json
import random
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from penstock.runtime.clock import ThreadClock, Timer
from tests.chaos.books import Books
from tests.chaos.callers import (
    CALLERS,
    PAUSES_S,
    Found,
    body_of,
    booked,
    closed,
    hints,
    program,
)
from tests.chaos.provider import Anything, anything

SPEED = 20.0
"""Seconds of the story in one of ours. What is held does not depend on the pace."""


class QuickClock:
    """A clock for a driver."""

    def __init__(self) -> None:
        self._clock = ThreadClock()

    def time(self) -> float:
        return self._clock.time() * SPEED

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        return self._clock.call_at(when / SPEED, callback)


class _QuickSelector(selectors.SelectSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout and timeout / SPEED)


class QuickLoop(asyncio.SelectorEventLoop):
    """An event loop for a provider."""

    def __init__(self) -> None:
        super().__init__(_QuickSelector())

    def time(self) -> float:
        return time.monotonic() * SPEED


CLOCK = QuickClock()
"""One for all: its thread lives as long as the process."""


@contextmanager
def anything_in_a_thread(seed: str) -> Iterator[tuple[Anything, str]]:
    """Serve from a thread; yield the provider and its base URL."""
    up, served = threading.Event(), []
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        async with anything(seed) as pair:
            served.append(pair)
            ends.append(lambda: loop.call_soon_threadsafe(over.set))
            up.set()
            await over.wait()

    def body() -> None:
        with asyncio.Runner(loop_factory=QuickLoop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=body)
    thread.start()
    up.wait()
    try:
        yield served[0]
    finally:
        ends[0]()
        thread.join()


def in_threads(library: Any, seed: str, requests: int) -> Found:
    """Play through the sync transport of httpx2 or httpx."""
    found, books, chance = Found(requests), Books(), random.Random(seed)
    answered: list[int] = []
    before = threading.active_count()
    with anything_in_a_thread(seed) as (provider, url):
        scheduled = program(books, CLOCK)
        client = scheduled.client(library=library.__name__, timeout=5.0 / SPEED)

        def one(number: int) -> bool:
            data, leaves = json.dumps(body_of(number, chance)).encode(), chance.random()
            call = client.build_request(
                "POST", f"{url}/chat/completions", content=data, headers=hints(chance)
            )
            with suppress(library.HTTPError, ValueError):
                reply = client.send(call, stream=True)
                answered.append(number)
                if leaves < 0.05:
                    return True  # and leaves it as it is
                for _ in reply.iter_raw():
                    if leaves > 0.9:
                        break
                reply.close()
                return bool(reply.status_code == 200)
            return False

        numbers = iter(range(requests))

        def caller() -> None:
            for number in numbers:
                if not one(number):
                    time.sleep(chance.choice(PAUSES_S) / SPEED)

        callers = [threading.Thread(target=caller) for _ in range(CALLERS)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
        client.close()
        gc.collect()
        found.answered = len(answered)
        closed(scheduled, found)
        _until(lambda: provider.open == 0)
        found.expect("provider's connections", provider.open, 0)
    CLOCK.call_at(0.0, lambda: None)  # its thread is there, whoever came first
    found.expect("threads", max(0, threading.active_count() - before - 1), 0)
    return booked(provider, books, found)


def _until(true: Callable[[], bool]) -> None:
    """Wait for what others do at their own pace."""
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
