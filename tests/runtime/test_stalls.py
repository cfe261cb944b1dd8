"""The driver notices when it could not act, whoever it was that slept."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from penstock import Penstock, Usage
from penstock.calls.factory import RequestFactory
from penstock.core.events import Action, DriverStalled, Event
from penstock.core.model import TrafficClass
from penstock.runtime.clock import Timer
from penstock.runtime.driver import Driver
from penstock.runtime.gate import Gate, SyncGate
from tests.runtime.window import Window
from tests.virtual_loop import VirtualLoop, run_virtual

CLASSES = (TrafficClass("all"),)


class Tape:
    def __init__(self) -> None:
        self.events: list[tuple[float, Event]] = []

    def event(self, now: float, event: Event) -> None:
        self.events.append((now, event))

    def action(self, now: float, action: Action) -> None:
        pass

    def names(self) -> list[str]:
        return [type(event).__name__ for _, event in self.events]


def held(hold_s: float) -> Tape:
    """Return what the scheduler is told where a coroutine blocks its loop while a call flies."""
    tape = Tape()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        gate = Gate(Driver(Window(1), observers=[tape]), RequestFactory(CLASSES, run="run"))
        async with gate.admit():
            await asyncio.sleep(1.0)
            loop.hold(hold_s)
            await asyncio.sleep(0)

    run_virtual(main())
    return tape


def test_a_blocked_loop_is_told_before_the_reply_that_it_delayed() -> None:
    tape = held(3.0)
    assert tape.names() == ["Arrived", "DriverStalled", "Completed"]
    now, stall = tape.events[1]
    assert isinstance(stall, DriverStalled)
    assert now == 4.0
    assert 0.95 <= stall.since <= 1.0


def test_what_a_loop_with_work_to_do_shows_at_any_time_is_no_stall() -> None:
    assert held(0.04).names() == ["Arrived", "Completed"]


def test_a_long_stall_is_told_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    held(0.5)
    assert not caplog.records
    held(3.0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "could not act for 3.0" in caplog.text


def test_a_loop_that_is_not_run_while_none_of_its_calls_is_in_hand_has_not_stalled() -> None:
    """A thread's own loop that runs for each call: others' replies are evidence all the same."""
    tape, loop = Tape(), VirtualLoop()
    gate = Gate(Driver(Window(2), clock=loop, observers=[tape]), RequestFactory(CLASSES, run="r"))

    async def call() -> None:
        await asyncio.sleep(0)
        async with gate.admit():
            await asyncio.sleep(0.12)

    for _ in range(3):
        loop.run_until_complete(call())
        loop.hold(60.0)
    loop.close()

    assert tape.names() == ["Arrived", "Completed"] * 3


def test_nothing_beats_where_nothing_is_in_flight() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = Gate(Driver(Window(1)), RequestFactory(CLASSES, run="run"))
        async with gate.admit():
            pass
        await asyncio.sleep(1.0)
        assert not loop._scheduled  # type: ignore[attr-defined]

    run_virtual(main())


class HandClock:
    """A clock of programs without a loop, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        self.timers.append((when, callback))
        return threading.Timer(0, callback)

    def fire(self) -> None:
        due, self.timers = self.timers, []
        for _, callback in due:
            callback()


def test_threads_have_one_pulse_and_a_suspended_process_is_told_once() -> None:
    tape, clock = Tape(), HandClock()
    gate = SyncGate(
        Driver(Window(2), clock=clock, observers=[tape]), RequestFactory(CLASSES, run="run")
    )
    with gate.admit() as first, gate.admit() as second:
        assert len(clock.timers) == 1
        clock.now = 5.0  # the whole process was stopped: its clock's thread as well
        first.settle()
        second.settle()
        clock.fire()

    assert tape.names() == ["Arrived", "Arrived", "DriverStalled", "Completed", "Completed"]
    assert not clock.timers


class Workers:
    """So many tasks, one call after the other, before a provider of 16 places."""

    def __init__(self, penstock: Penstock | None) -> None:
        self._penstock = penstock
        self._places = asyncio.Semaphore(16)
        self.done = 0

    async def _ask(self, tokens: int) -> None:
        async with self._places:
            await asyncio.sleep(0.05 + tokens * 0.002)

    async def work(self, number: int) -> None:
        while True:
            tokens = 20 + (number * 7 + self.done * 13) % 60
            if self._penstock is None:
                await self._ask(tokens)
            else:
                async with self._penstock.gate().admit(tokens=tokens) as slot:
                    await self._ask(tokens)
                    slot.settle(Usage(tokens))
            self.done += 1


@pytest.mark.parametrize(("hold_s", "every_s"), [(0.3, 1.0), (3.0, 20.0)])
def test_a_program_that_blocks_its_loop_gets_as_much_done_as_without_penstock(
    hold_s: float, every_s: float
) -> None:
    async def main(*, scheduled: bool) -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        workers = Workers(Penstock(clock=loop, tracer=None) if scheduled else None)
        tasks = [asyncio.create_task(workers.work(number)) for number in range(32)]
        for _ in range(round(40 / every_s)):
            await asyncio.sleep(every_s - hold_s)
            loop.hold(hold_s)
        for task in tasks:
            task.cancel()
        return workers.done

    plain = run_virtual(main(scheduled=False))
    assert run_virtual(main(scheduled=True)) >= 0.95 * plain


PROGRAM = """
import penstock, threading
seen = threading.Event()
hooks = penstock.Hooks(on_event=lambda now, e: type(e).__name__ == "DriverStalled" and seen.set())
penstock.configure(observers=[hooks])
with penstock.sync_gate().admit():
    print("in flight", flush=True)
    assert seen.wait(60)
print(penstock.snapshot()["default"].upstreams["default"].unmeasured)
"""


def test_a_real_process_that_was_stopped_notices() -> None:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "in flight\n"
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(0.3)  # a process that is stopped for less is not late
    os.kill(child.pid, signal.SIGCONT)
    said, _ = child.communicate(timeout=60)
    assert said == "1\n"
