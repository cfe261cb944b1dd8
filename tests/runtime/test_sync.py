"""Threads and coroutines share one scheduler."""

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.calls.factory import RequestFactory
from penstock.calls.spec import RequestSpec
from penstock.core.events import Cancelled, Completed
from penstock.core.model import TrafficClass
from penstock.errors import ProtocolError, Refused
from penstock.runtime.clock import ThreadClock
from penstock.runtime.driver import Driver
from penstock.runtime.gate import Gate, SyncGate
from penstock.wire.usage import Usage
from tests.runtime.window import Window

CLASSES = (TrafficClass("all"),)


def gates(core: Window) -> tuple[Gate, SyncGate]:
    driver = Driver(core, clock=ThreadClock())
    factory = RequestFactory(CLASSES, run="run")
    return Gate(driver, factory), SyncGate(driver, factory)


def test_a_thread_waits_for_another_threads_slot() -> None:
    core = Window(1)
    _, gate = gates(core)
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.wait()
        with gate.admit():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with gate.admit() as slot:
        entered.set()
        while core.snapshot()["backlog"] == 0:
            time.sleep(0.001)
        order.append("first")
        slot.settle(Usage(1))
    thread.join()
    assert order == ["first", "second"]


def test_many_threads_and_many_loops_leave_nothing_behind() -> None:
    core = Window(3)
    gate, sync_gate = gates(core)
    most = 0
    counted = threading.Lock()

    def note() -> None:
        nonlocal most
        with counted:
            most = max(most, len(core.flying))

    def in_thread() -> None:
        for _ in range(100):
            with sync_gate.admit() as slot:
                note()
                slot.settle(Usage(1))

    def in_loop() -> None:
        async def one() -> None:
            async with gate.admit() as slot:
                note()
                await asyncio.sleep(0)
                slot.settle(Usage(1))

        async def main() -> None:
            await asyncio.gather(*(one() for _ in range(100)))

        asyncio.run(main())

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(each) for each in [in_thread, in_loop] * 4]
        for job in jobs:
            job.result(timeout=60)

    assert most <= 3
    assert sum(isinstance(event, Completed) for _, event in core.seen) == 800
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}
    assert gate.driver.in_hand == 0


def test_the_clock_thread_wakes_what_waits_for_time_alone() -> None:
    _, gate = gates(Window(1))
    with gate.admit() as slot:
        slot.throttled("rate", 0.01)
        assert slot.attempts == 2
        with pytest.raises(Refused, match="expired"), gate.admit(expires_in_s=0.02):
            pytest.fail("there is no room")
        slot.failed(retryable=False)


def test_a_slot_promised_to_a_closed_loop_is_given_back() -> None:
    core = Window(1)
    gate, sync_gate = gates(core)
    holder = sync_gate.enter(RequestSpec())

    async def waits() -> None:
        await gate.enter(RequestSpec())

    loop = asyncio.new_event_loop()
    task = loop.create_task(waits())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()  # with the task still waiting: nobody will ever hear of its dispatch

    holder.settle(Usage(1))
    assert core.seen[-1][1] == Cancelled(2)
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    task.get_coro().close()


def test_an_error_reaches_the_thread_whose_event_it_was() -> None:
    _, gate = gates(Window(1))
    slot = gate.enter(RequestSpec())
    slot.settle()
    with pytest.raises(ProtocolError, match="does not fly"):
        gate.driver.tell(Completed(slot.request.id, 1))


def test_an_interrupt_while_waiting_gives_up_the_place() -> None:
    core = Window(1)
    _, gate = gates(core)
    first = gate.enter(RequestSpec())

    def interrupt() -> None:
        while core.snapshot()["backlog"] == 0:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        gate.enter(RequestSpec())
    thread.join()
    first.settle()
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGALRM])
def test_a_handler_that_raises_waits_for_the_decision_unless_it_is_called_twice(
    kind: signal.Signals, times: int
) -> None:
    passed: list[str] = []
    armed = threading.Event()

    class Slow:
        def event(self, now: float, event: object) -> None:
            for _ in range(times if armed.is_set() else 0):
                signal.raise_signal(kind)
            passed.append(type(event).__name__)

        def action(self, now: float, action: object) -> None:
            passed.append(type(action).__name__)

    def handler(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    core = Window(1)
    gate = SyncGate(
        Driver(core, clock=ThreadClock(), observers=[Slow()]), RequestFactory(CLASSES, run="run")
    )
    before = signal.signal(kind, handler)
    armed.set()
    try:
        with pytest.raises(KeyboardInterrupt), gate.admit():
            pytest.fail("it was interrupted on its way here")
        assert signal.getsignal(kind) is handler
    finally:
        armed.clear()  # a slot that is found garbage later must not meet pytest's own handler
        signal.signal(kind, before)
    assert passed == (["Arrived", "Dispatch", "Cancelled"] if times == 1 else ["Dispatch"])
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}


def test_an_event_told_in_the_middle_of_a_decision_is_taken_after_it() -> None:
    """A finaliser may run anywhere, also inside `handle` on the same thread."""
    core = Window(2)
    driver = Driver(core, clock=ThreadClock())
    gate = SyncGate(driver, RequestFactory(CLASSES, run="run"))
    first = gate.enter(RequestSpec())

    class Meddler:
        def event(self, now: float, event: object) -> None:
            first.cancel()

        def action(self, now: float, action: object) -> None:
            pass

    driver.observers.append(Meddler())
    second = gate.enter(RequestSpec())
    assert [type(event).__name__ for _, event in core.seen] == ["Arrived", "Arrived", "Cancelled"]
    second.settle()
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}


def test_a_snapshot_has_taken_in_what_was_told_before() -> None:
    core = Window(1)
    gate, sync_gate = gates(core)
    seen: list[object] = []

    class Looker:
        def event(self, now: float, event: object) -> None:
            seen.append(gate.driver.snapshot())

        def action(self, now: float, action: object) -> None:
            pass

    gate.driver.observers.append(Looker())
    gate.driver._turn.acquire()  # somebody else is at it
    held: list[object] = []
    slot_thread = threading.Thread(target=lambda: held.append(sync_gate.enter(RequestSpec())))
    slot_thread.start()
    while not gate.driver._inbox:
        time.sleep(0.001)
    gate.driver._turn.release()
    assert gate.driver.snapshot() == {"in_flight": 1, "backlog": 0}
    slot_thread.join()
    assert seen == [{"in_flight": 1, "backlog": 0}]  # an event is shown once the core has taken it


def test_a_threads_slot_is_entered_once() -> None:
    core = Window(2)
    once = gates(core)[1].admit()
    with once:
        pass
    with pytest.raises(ProtocolError, match="entered once"), once:
        pytest.fail("it has ended")
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}
