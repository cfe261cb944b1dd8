"""Programs to which something happens after half of their calls: a fork, a new loop, threads."""

import asyncio
import heapq
import itertools
import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx2

import penstock
from benchmarks.troubles.callers import Calls, Ends, program, program_sync
from benchmarks.troubles.http import AsyncWire, SyncWire
from benchmarks.troubles.provider import Provider
from benchmarks.troubles.threads import VirtualThreads
from penstock import RequestSpec
from tests.virtual_loop import VirtualLoop

if TYPE_CHECKING:
    from benchmarks.troubles.table import Trouble

URL = "http://provider.example/v1/chat/completions"
HALF = Calls().count // 2
LEFT = 4
"""Calls in flight when it happens, whose ends nobody sees."""
FORKED = "a fork"
ANOTHER_LOOP = "another event loop"
MIXED = "threads and an event loop"
AGAIN = "configured again"
LIVES = (FORKED, ANOTHER_LOOP, MIXED, AGAIN)


class _Timer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class _Clock:
    """The time of whatever runs the program now; its timers outlive that, as a thread's do."""

    def __init__(self) -> None:
        self._runs: VirtualLoop | VirtualThreads = VirtualThreads()
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _Timer]] = []

    def time(self) -> float:
        return self._runs.time()

    def call_at(self, when: float, callback: Callable[[], object], /) -> _Timer:
        timer = _Timer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        self._runs.call_at(when, self._ring)
        return timer

    def _ring(self) -> None:
        while self._timers and self._timers[0][0] <= self.time():
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                timer.callback()

    def move(self, runs: VirtualLoop | VirtualThreads) -> None:
        """Go on with another loop, or with threads."""
        runs.hold(self.time())
        self._runs = runs
        for when, _, _ in self._timers:
            runs.call_at(when, self._ring)


class _Life:
    """One program; what runs it may change, its clients' penstock does not."""

    def __init__(self, trouble: "Trouble", provider: Provider, *, with_penstock: bool) -> None:
        self.clock = _Clock()
        self.provider = provider
        self._trouble = trouble
        self._with_penstock = with_penstock
        self._left: list[Any] = []
        self.configure()

    def configure(self) -> None:
        if self._with_penstock:
            penstock.configure(clock=self.clock, tracer=None)

    def half(self, way: str, numbers: Sequence[int]) -> Ends:
        """Make half of the calls, in a loop of their own or in threads."""
        return self._loop(numbers) if way == "async" else self._threads(numbers)

    def _loop(self, numbers: Sequence[int]) -> Ends:
        loop = VirtualLoop()
        self.clock.move(loop)

        async def play() -> Ends:
            options: dict[str, Any] = {"transport": AsyncWire(self.provider), "timeout": None}
            made = penstock.async_client if self._with_penstock else httpx2.AsyncClient
            async with made(**options) as client:
                ends = await program(client, URL, self._trouble.calls, numbers)
            if self._with_penstock and self._trouble.life == ANOTHER_LOOP and not self._left:
                gate = penstock.gate("provider.example")
                self._left += [await gate.enter(RequestSpec()) for _ in range(LEFT)]
            return ends

        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(play())

    def _threads(self, numbers: Sequence[int]) -> Ends:
        clock = VirtualThreads()
        self.clock.move(clock)
        options: dict[str, Any] = {"transport": SyncWire(self.provider, clock), "timeout": None}
        made = penstock.client if self._with_penstock else httpx2.Client
        with (
            mock.patch("penstock.runtime.slot.ThreadWaiter", clock.waiter),
            made(**options) as client,
        ):
            return program_sync(client, URL, clock, self._trouble.calls, numbers)

    def fork(self, way: str, numbers: Sequence[int]) -> Ends:
        """Make half of the calls in a child; the parent has some in flight meanwhile."""
        self.clock.move(VirtualThreads())
        with ExitStack() as held:
            for _ in range(LEFT if self._with_penstock else 0):
                held.enter_context(penstock.sync_gate("provider.example").admit())
            read, write = os.pipe()
            child = os.fork()
            if not child:
                try:
                    with os.fdopen(write, "wb") as answer:
                        pickle.dump(self.half(way, numbers), answer)
                finally:
                    os._exit(0)
            os.close(write)
            with os.fdopen(read, "rb") as answer:
                ends = pickle.load(answer)
            os.waitpid(child, 0)
        assert isinstance(ends, Ends)
        return ends


def lived(trouble: "Trouble", provider: Provider, way: str, *, with_penstock: bool) -> Ends:
    """Play a program in which that happens."""
    with mock.patch("penstock.integrations.default._default", None):
        life = _Life(trouble, provider, with_penstock=with_penstock)
        ends = life.half(way, range(HALF))
        rest = range(HALF, trouble.calls.count)
        if trouble.life == FORKED:
            later = life.fork(way, rest)
        elif trouble.life == MIXED:
            later = life.half("sync" if way == "async" else "async", rest)
        else:
            if trouble.life == AGAIN:
                life.configure()
            later = life.half(way, rest)
    ends.at |= later.at
    ends.asked = provider.asked
    return ends
