"""The gate lets requests through in turn and gets every slot back."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from penstock.calls.factory import RequestFactory
from penstock.calls.spec import RequestSpec, TablePredictor
from penstock.core.events import Cancelled, Completed, Failed, FirstToken
from penstock.core.model import TokenEstimate, TrafficClass
from penstock.errors import ProtocolError, Refused
from penstock.runtime.driver import Driver
from penstock.runtime.gate import Gate
from penstock.wire.usage import Usage
from tests.runtime.window import Window
from tests.virtual_loop import run_virtual

CLASSES = (
    TrafficClass("interactive", deadline_s=2.0, estimate=TokenEstimate(30, 60)),
    TrafficClass("batch", estimate=TokenEstimate(300, 900)),
)


def gate_over(core: Window, **factory: Any) -> Gate:
    return Gate(Driver(core), RequestFactory(CLASSES, run="run", **factory))


def story(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


def test_a_request_with_room_goes_at_once_and_its_usage_reaches_the_scheduler() -> None:
    core = Window(1)

    async def main() -> None:
        async with gate_over(core).admit(traffic_class="interactive", model="m") as slot:
            assert (slot.id, slot.upstream, slot.queued_s) == ("run-1", "mill", 0.0)
            slot.first_token()
            slot.first_token()
            slot.settle(Usage(12, 7, cached_tokens=5, counted_input_tokens=2))

    story(main())
    assert [event for _, event in core.seen[1:]] == [
        FirstToken(1),
        Completed(1, 12, 7, reported=True, cached_tokens=5, counted_input_tokens=2),
    ]


def test_the_second_request_waits_for_the_first_and_says_how_long() -> None:
    core = Window(1)

    async def main() -> None:
        gate = gate_over(core)

        async def first() -> None:
            async with gate.admit():
                await asyncio.sleep(3.0)

        task = asyncio.create_task(first())
        await asyncio.sleep(1.0)
        async with gate.admit() as slot:
            assert slot.queued_s == 2.0
            assert slot.why.waits == {"window": 2.0}
        await task

    story(main())
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}


def test_those_who_were_dispatched_first_send_first() -> None:
    core = Window(0)
    order: list[str] = []

    async def main() -> None:
        gate = gate_over(core)

        async def caller(name: str) -> None:
            async with gate.admit():
                order.append(name)

        waits = asyncio.create_task(caller("who waited"))
        await asyncio.sleep(1.0)
        core.size = 2  # the next arrival lets both go
        await caller("who just came")
        await waits

    story(main())
    assert order == ["who waited", "who just came"]


def test_leaving_without_settling_counts_as_complete_with_unknown_usage() -> None:
    core = Window(1)

    async def main() -> None:
        async with gate_over(core).admit():
            pass

    story(main())
    assert core.seen[-1][1] == Completed(1, None, None, reported=False)


def test_an_error_in_the_body_frees_the_slot_and_is_not_held_against_the_upstream() -> None:
    core = Window(1)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with gate_over(core).admit():
                raise ZeroDivisionError

    story(main())
    assert core.seen[-1][1] == Failed(1, retryable=False, upstream_fault=False)


def test_a_caller_cancelled_in_the_body_frees_the_slot() -> None:
    core = Window(1)

    async def main() -> None:
        async def body() -> None:
            async with gate_over(core).admit():
                await asyncio.sleep(9.0)

        task = asyncio.create_task(body())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    story(main())
    assert core.seen[-1] == (1.0, Cancelled(1))


def test_a_caller_cancelled_at_the_moment_of_its_dispatch_frees_the_slot() -> None:
    core = Window(1)

    async def main() -> None:
        gate = gate_over(core)

        async def body() -> None:
            async with gate.admit():
                pytest.fail("it was cancelled before it ran")

        async with gate.admit() as first:
            task = asyncio.create_task(body())
            await asyncio.sleep(0)
            first.settle(Usage(1))  # dispatches the second, which has not run yet
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    story(main())
    assert core.seen[-1][1] == Cancelled(2)
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}


def test_a_slot_is_entered_once_so_that_each_place_is_given_back() -> None:
    core = Window(2)

    async def main() -> None:
        once = gate_over(core).admit()
        async with once:
            with pytest.raises(ProtocolError, match="entered once"):
                await once.__aenter__()
            await once.throttled("rate", retry_after_s=4.0)  # its word still comes
        with pytest.raises(ProtocolError, match="entered once"):
            async with once:
                pytest.fail("it has ended")

    story(main())
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}


def test_a_throttled_request_goes_again_when_the_scheduler_says() -> None:
    async def main() -> None:
        async with gate_over(Window(1)).admit() as slot:
            await slot.throttled("rate", retry_after_s=4.0)
            assert asyncio.get_running_loop().time() == 4.0
            assert slot.attempts == 2
            await slot.failed()
            assert asyncio.get_running_loop().time() == 5.0
            slot.settle(Usage(5))

    story(main())


def test_a_request_that_may_not_go_again_is_refused_with_its_reasons() -> None:
    core = Window(1)

    async def main() -> None:
        with pytest.raises(Refused) as refusal:
            async with gate_over(core).admit(traffic_class="batch") as slot:
                await slot.throttled("quota", retry_after_s=86_400.0)
        assert (refusal.value.id, refusal.value.reason) == ("run-1", "upstream")
        assert (refusal.value.rung, refusal.value.severity) == ("short", 0.25)
        assert refusal.value.predicted_cost_tokens == 300
        assert refusal.value.retry_after_s == 86_400.0

    story(main())
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}


def test_a_request_that_fails_for_good_ends_at_once() -> None:
    core = Window(1)

    async def main() -> None:
        async with gate_over(core).admit() as slot:
            await slot.failed(retryable=False, upstream_fault=True)
            assert slot.ended

    story(main())
    assert core.seen[-1][1] == Failed(1, retryable=False, upstream_fault=True)


def test_a_waiting_request_expires_by_the_timer() -> None:
    async def main() -> None:
        gate = gate_over(Window(1), ttl_s=2.5)
        async with gate.admit():
            with pytest.raises(Refused, match="expired"):
                async with gate.admit():
                    pytest.fail("there is no room")
            assert asyncio.get_running_loop().time() == 2.5

    story(main())


def test_draining_refuses_what_waits_and_lets_what_flies_finish() -> None:
    core = Window(1)

    async def main() -> None:
        gate = gate_over(core)
        async with gate.admit() as flying:
            waiting = asyncio.create_task(gate.enter(RequestSpec()))
            await asyncio.sleep(0)
            gate.drain()
            with pytest.raises(Refused, match="draining"):
                await waiting
            flying.settle(Usage(3))

    story(main())
    assert core.snapshot() == {"in_flight": 0, "backlog": 0}


def test_settling_twice_is_the_callers_mistake() -> None:
    async def main() -> None:
        async with gate_over(Window(1)).admit() as slot:
            slot.settle()
            with pytest.raises(ProtocolError, match="settle it once"):
                slot.settle()
            with pytest.raises(ProtocolError, match="throttled"):
                await slot.throttled("rate")

    story(main())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"traffic_class": "interactiv"}, "known are interactive, batch"),
        ({"deadline_s": 0.0}, "deadline_s=0.0"),
        ({"expires_in_s": -1.0}, "expires_in_s=-1.0"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused_before_anything_happens(
    words: dict[str, Any], says: str
) -> None:
    core = Window(1)

    async def main() -> None:
        with pytest.raises(ValueError, match=says):
            async with gate_over(core).admit(**words):
                pytest.fail("it cannot be admitted")

    story(main())
    assert core.seen == []


def test_a_spec_and_keywords_together_are_refused() -> None:
    with pytest.raises(TypeError, match="tenant"):
        gate_over(Window(1)).admit(RequestSpec(), tenant="a")


def test_max_tokens_can_be_taken_for_what_the_caller_expects() -> None:
    async def main() -> None:
        gate = gate_over(Window(1), predictor=TablePredictor(trusts_cap=True))
        for cap, estimate in ((100, (60.0, 100)), (1, (1.0, 1.0)), (None, (300, 900))):
            async with gate.admit(traffic_class="batch", max_tokens=cap) as slot:
                found = slot.request.estimate
                assert (found.p50_tokens, found.p90_tokens) == estimate

    story(main())


def test_max_tokens_caps_the_class_table() -> None:
    core = Window(1)

    async def main() -> None:
        async with gate_over(core).admit(traffic_class="batch", max_tokens=100) as slot:
            assert slot.request.estimate == TokenEstimate(100, 100, "max_tokens")
        async with gate_over(core).admit(traffic_class="batch", max_tokens=5000) as slot:
            assert slot.request.estimate == TokenEstimate(300, 900)

    story(main())
