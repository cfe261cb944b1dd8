"""The driver tells, times and delivers; what others do wrong stays theirs."""

import asyncio

import pytest

from penstock.calls.factory import RequestFactory
from penstock.calls.spec import RequestSpec
from penstock.core.events import Action, Event, Woke
from penstock.core.model import TrafficClass
from penstock.errors import ProtocolError, Refused
from penstock.runtime.driver import Driver
from penstock.runtime.gate import Gate
from penstock.runtime.waiters import ThreadWaiter
from tests.runtime.window import Window
from tests.virtual_loop import run_virtual

CLASSES = (TrafficClass("all"),)


class Tape:
    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []

    def event(self, now: float, event: Event) -> None:
        self.lines.append((now, type(event).__name__))

    def action(self, now: float, action: Action) -> None:
        self.lines.append((now, type(action).__name__))


def test_observers_see_everything_in_order_with_the_time() -> None:
    tape = Tape()

    async def main() -> None:
        gate = Gate(Driver(Window(1), observers=[tape]), RequestFactory(CLASSES, run="run"))
        async with gate.admit() as slot:
            await slot.throttled("rate", 1.5)

    run_virtual(main())
    assert tape.lines == [
        (0.0, "Arrived"),
        (0.0, "Dispatch"),
        (0.0, "Throttled"),
        (1.5, "Woke"),
        (1.5, "Dispatch"),
        (1.5, "Completed"),
    ]


def test_an_observer_that_fails_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Bad:
        def event(self, now: float, event: Event) -> None:
            raise ZeroDivisionError

        def action(self, now: float, action: Action) -> None:
            raise ZeroDivisionError

    tape = Tape()

    async def main() -> None:
        async with Gate(
            Driver(Window(1), observers=[Bad(), tape]), RequestFactory(CLASSES, run="run")
        ).admit():
            pass

    run_virtual(main())
    assert [name for _, name in tape.lines] == ["Arrived", "Dispatch", "Completed"]
    assert {r.message for r in caplog.records} == {
        "an observer failed on Arrived",
        "an observer failed on Dispatch",
        "an observer failed on Completed",
    }


def test_an_early_timer_that_is_no_longer_wanted_wakes_nobody() -> None:
    core = Window(1)

    async def main() -> None:
        gate = Gate(Driver(core), RequestFactory(CLASSES, run="run"))
        async with gate.admit() as first:
            waiting = asyncio.create_task(gate.enter(RequestSpec(expires_in_s=2.0)))
            await asyncio.sleep(1.0)
            first.settle()
            slot = await waiting
            await asyncio.sleep(5.0)
            slot.settle()

    run_virtual(main())
    assert not [event for _, event in core.seen if isinstance(event, Woke)]


def test_an_earlier_need_moves_the_timer() -> None:
    async def main() -> None:
        gate = Gate(Driver(Window(1)), RequestFactory(CLASSES, run="run"))
        async with gate.admit():
            late = asyncio.create_task(gate.enter(RequestSpec(expires_in_s=9.0)))
            await asyncio.sleep(0)
            with pytest.raises(Refused):
                await gate.enter(RequestSpec(expires_in_s=2.0))
            assert asyncio.get_running_loop().time() == 2.0
            with pytest.raises(Refused):
                await late
            assert asyncio.get_running_loop().time() == 9.0

    run_virtual(main())


def test_one_id_in_hand_twice_is_refused() -> None:
    async def main() -> None:
        driver = Driver(Window(1))
        async with Gate(driver, RequestFactory(CLASSES, run="run")).admit() as slot:
            with pytest.raises(ProtocolError, match="already in hand"):
                driver.submit(slot.request, ThreadWaiter())

    run_virtual(main())


def test_a_driver_without_a_loop_or_a_clock_says_so() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Driver(Window(1)).now()


def test_a_closed_driver_wakes_no_more() -> None:
    core = Window(1)

    async def main() -> None:
        driver = Driver(core)
        gate = Gate(driver, RequestFactory(CLASSES, run="run"))
        async with gate.admit():
            task = asyncio.create_task(gate.enter(RequestSpec(expires_in_s=1.0)))
            await asyncio.sleep(0)
            driver.close()
            await asyncio.sleep(5.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run_virtual(main())
    assert not [event for _, event in core.seen if isinstance(event, Woke)]
