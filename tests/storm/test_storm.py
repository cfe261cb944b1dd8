"""A hundred callers, a provider that refuses everything for a minute, then serves again.

The real gate and driver on a loop whose clock jumps: two and a half minutes take a second.
"""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from penstock.calls.factory import RequestFactory
from penstock.core.events import RefusalCause
from penstock.core.model import TokenEstimate, TrafficClass
from penstock.core.settings import Settings
from penstock.errors import Refused
from penstock.policies.registry import build_scheduler
from penstock.runtime.driver import Driver
from penstock.runtime.gate import Gate
from penstock.runtime.slot import Slot
from penstock.sim.providers.base import Happening, Job, Provider
from penstock.sim.providers.registry import build_provider
from penstock.wire.usage import Usage
from tests.virtual_loop import run_virtual

CALLERS = 100
STORM_S = (60.0, 120.0)
END_S = 240.0
CLASSES = (
    TrafficClass("interactive", deadline_s=600.0, estimate=TokenEstimate(40, 64)),
    TrafficClass("heavy", deadline_s=600.0, estimate=TokenEstimate(300, 600)),
)


@dataclass
class Provision:
    """A provider model behind the loop's clock, which counts what it is sent."""

    provider: Provider
    sent_at: list[float] = field(default_factory=list)
    done: list[tuple[float, int]] = field(default_factory=list)
    _timer: asyncio.TimerHandle | None = None
    _replies: dict[int, asyncio.Future[None]] = field(default_factory=dict)

    async def work(self, slot: Slot, number: int, tokens: int) -> None:
        """Send one request until it has an answer."""
        loop = asyncio.get_running_loop()
        while True:
            self.sent_at.append(loop.time())
            refusal = self.provider.submit(Job(number, tokens), now=loop.time())
            if refusal is None:
                break
            await slot.throttled(RefusalCause(refusal.kind), refusal.retry_after_s)
        self._replies[number] = loop.create_future()
        self._arm(loop)
        await self._replies[number]
        self.done.append((loop.time(), tokens))
        slot.settle(Usage(tokens))

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        at = self.provider.next_event_at()
        self._timer = loop.call_at(at, self._happen, loop) if at < float("inf") else None

    def _happen(self, loop: asyncio.AbstractEventLoop) -> None:
        for event in self.provider.advance(now=loop.time()):
            if event.what is Happening.FINISHED:
                self._replies.pop(event.job_id).set_result(None)
        self._arm(loop)


@dataclass
class Story:
    """What the callers saw."""

    asked_at: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    left_in_flight: int = 0
    left_waiting: int = 0


async def callers(table: Mapping[str, object], *, seed: int) -> tuple[Story, Provision]:
    """Let every caller ask, wait for the answer, think for a moment, and ask again."""
    loop = asyncio.get_running_loop()
    provision = Provision(build_provider(table, seed=seed))
    scheduler = build_scheduler(Settings(CLASSES))
    gate = Gate(Driver(scheduler), RequestFactory(CLASSES, run="run"), chance=random.Random(seed))
    story = Story()

    async def caller(who: int) -> None:
        chance = random.Random(f"{seed}/{who}")
        number = who
        while loop.time() < END_S:
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            heavy = chance.random() < 0.3
            tokens = chance.randint(200, 600) if heavy else chance.randint(16, 64)
            number += CALLERS
            story.asked_at.append(loop.time())
            try:
                kind = "heavy" if heavy else "interactive"
                async with gate.admit(traffic_class=kind) as slot:
                    await provision.work(slot, number, tokens)
            except Refused:
                story.refused_at.append(loop.time())

    await asyncio.gather(*(caller(who) for who in range(CALLERS)))
    rest = scheduler.snapshot()
    story.left_in_flight, story.left_waiting = rest.in_flight, rest.waiting
    return story, provision


def storm(status: int, retry_after_s: float | None) -> dict[str, object]:
    """Return a provider of 16 slots that answers everything with `status` in the storm."""
    window: dict[str, object] = {
        "kind": "status",
        "from_s": STORM_S[0],
        "until_s": STORM_S[1],
        "status": status,
    }
    if retry_after_s is not None:
        window["retry_after_s"] = retry_after_s
    inner = {"model": "slots", "slots": 16, "tokens_per_s": 200.0, "ttft_s": 0.15}
    return {"model": "faulty", "windows": [window], "inner": inner}


def within(times: list[float], start: float, end: float) -> int:
    """Count the times in [start, end)."""
    return sum(start <= at < end for at in times)


def tokens_within(done: list[tuple[float, int]], start: float, end: float) -> int:
    """Add up the tokens of the replies that ended in [start, end)."""
    return sum(tokens for at, tokens in done if start <= at < end)


@pytest.mark.parametrize(
    ("status", "retry_after_s"), [(529, None), (503, None), (429, None), (429, 2.0)]
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_storm_loses_nobody_is_not_amplified_and_is_over_soon(
    status: int, retry_after_s: float | None, seed: int
) -> None:
    story, provision = run_virtual(callers(storm(status, retry_after_s), seed=seed))

    # Nobody is refused: every deadline allowed to wait. Nothing is left behind.
    assert story.refused_at == []
    assert (story.left_in_flight, story.left_waiting) == (0, 0)
    assert len(provision.done) == len(story.asked_at)

    # The storm is not amplified: at most 1.1 attempts for each request that was there.
    start, end = STORM_S
    present = CALLERS + within(story.asked_at, start, end)
    assert within(provision.sent_at, start, end) <= 1.1 * present

    # Goodput is back to 95 % within 30 s. In tokens: how many requests a minute holds is chance.
    before = tokens_within(provision.done, start - 30.0, start)
    after = tokens_within(provision.done, end + 30.0, end + 60.0)
    assert after >= 0.95 * before
