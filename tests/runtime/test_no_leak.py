"""Whatever callers do, and wherever they are cancelled, nothing leaks."""

import asyncio
import contextlib
import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.calls.factory import RequestFactory
from penstock.core.events import Action, Arrived, Cancelled, Completed, Event, Failed, Reject
from penstock.core.model import TokenEstimate, TrafficClass
from penstock.core.settings import PolicySpec, Settings, Stack, UpstreamSettings
from penstock.errors import Refused
from penstock.policies.registry import build_scheduler
from penstock.runtime.driver import Driver
from penstock.runtime.gate import Gate
from penstock.wire.usage import Usage
from tests.virtual_loop import run_virtual

SETTINGS = Settings(
    classes=(
        TrafficClass("interactive", estimate=TokenEstimate(30, 60)),
        TrafficClass("batch", estimate=TokenEstimate(500, 2000), queue_limit=6),
    ),
    upstreams=(UpstreamSettings(capacity=PolicySpec("fixed", {"window": 2})),),
    stack=Stack(),
)

bodies = st.sampled_from(
    ["settle", "leave", "raise", "throttle", "quota", "fail", "fail for good", "first token"]
)
callers = st.lists(
    st.tuples(
        st.floats(0, 3),  # arrives
        bodies,
        st.sampled_from(["interactive", "batch"]),
        st.floats(0, 2),  # works
        st.none() | st.floats(0, 4),  # is cancelled
        st.sampled_from([0.5, 3.0, float("inf")]),  # expires
    ),
    min_size=1,
    max_size=14,
)


class Ledger:
    """An observer that counts how each request ended."""

    def __init__(self) -> None:
        self.ends: dict[int, int] = {}

    def event(self, now: float, event: Event) -> None:
        if isinstance(event, Arrived):
            self.ends[event.request.id] = 0
        elif isinstance(event, Completed | Cancelled) or (
            isinstance(event, Failed) and not event.retryable
        ):
            self.ends[event.request_id] += 1

    def action(self, now: float, action: Action) -> None:
        if isinstance(action, Reject):
            self.ends[action.request.id] += 1


async def call(gate: Gate, body: str, name: str, work_s: float, expires_s: float) -> None:
    async with gate.admit(traffic_class=name, expires_in_s=expires_s) as slot:
        await asyncio.sleep(work_s)
        match body:
            case "settle":
                slot.settle(Usage(20, 5))
                await asyncio.sleep(work_s)
            case "raise":
                raise ZeroDivisionError
            case "throttle":
                await slot.throttled("rate", 0.25)
                await asyncio.sleep(work_s)
            case "quota":
                await slot.throttled("quota", 90_000.0)
            case "fail":
                await slot.failed()
            case "fail for good":
                await slot.failed(retryable=False)
            case "first token":
                slot.first_token()
                await asyncio.sleep(work_s)


@example(
    [
        *[(0.0, "settle", "interactive", 0.0, None, 0.5)] * 8,
        (0.0, "settle", "interactive", 1.0, None, 0.5),
        (0.0, "quota", "interactive", 1.0, None, 0.5),
        (0.0, "settle", "interactive", 0.0, 3.0, 3.0),
    ],
    0,
)  # cancelled at the instant of the refusal, which it has not heard yet
@settings(max_examples=150, deadline=None)
@given(callers, st.integers(0, 2**32))
def test_every_request_ends_once_and_nothing_stays(
    plan: list[tuple[float, str, str, float, float | None, float]], seed: int
) -> None:
    scheduler = build_scheduler(SETTINGS)
    ledger = Ledger()
    driver = Driver(scheduler, observers=[ledger])

    async def main() -> None:
        gate = Gate(driver, RequestFactory(SETTINGS.classes, run="r"), chance=random.Random(seed))
        loop = asyncio.get_running_loop()

        async def one(at: float, body: str, name: str, work_s: float, expires_s: float) -> None:
            await asyncio.sleep(at)
            with contextlib.suppress(Refused, ZeroDivisionError):
                await call(gate, body, name, work_s, expires_s)

        tasks = []
        for at, body, name, work_s, cancelled_s, expires_s in plan:
            tasks.append(asyncio.create_task(one(at, body, name, work_s, expires_s)))
            if cancelled_s is not None:
                loop.call_later(at + cancelled_s, tasks[-1].cancel)
        await asyncio.gather(*tasks, return_exceptions=True)

    run_virtual(main())

    snapshot = scheduler.snapshot()
    assert set(ledger.ends.values()) <= {1}
    assert driver.in_hand == 0
    assert (snapshot.waiting, snapshot.deferred, snapshot.in_flight) == (0, 0, 0)
    assert all(u.in_flight_tokens == 0 for u in snapshot.upstreams.values())
    assert all(
        (c.waiting, c.waiting_tokens, c.in_flight) == (0, 0, 0)
        for lane in snapshot.lanes
        for c in lane.classes.values()
    )
