"""A provider model behind asyncio, and a gate that admits prepared requests, in virtual time."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from penstock.calls.factory import RequestFactory
from penstock.calls.spec import RequestSpec
from penstock.core.events import Action, Event, LimitsSeen, RefusalCause
from penstock.core.model import Request
from penstock.core.scheduler import Scheduler
from penstock.errors import Refused
from penstock.runtime.driver import Driver
from penstock.runtime.gate import Gate
from penstock.runtime.slot import Slot
from penstock.sim.calls import unit
from penstock.sim.engine import _JITTER_STREAM
from penstock.sim.providers.base import Happening, Job, Provider, ProviderEvent
from penstock.sim.workload import Load, Workload
from penstock.wire.usage import Usage

STEPS_OF_A_CONSEQUENCE = 12
"""Turns of the loop from a reply to the last attempt that it lets go."""
Step = tuple[float, Event, list[Action]]


class Tape:
    """An observer that keeps what the engine's watch is shown."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def event(self, now: float, event: Event) -> None:
        self.steps.append((now, event, []))

    def action(self, now: float, action: Action) -> None:
        self.steps[-1][2].append(action)


class TimersLast:
    """The loop as a clock whose timers come after everything else of the same instant.

    That is the engine's order (completions, arrivals, timers). asyncio has none of its own for
    timers that are due at once; here a reply needs one turn of the loop to reach its caller, so
    timers wait for two.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        def later() -> None:
            self._loop.call_soon(self._loop.call_soon, callback)

        return self._loop.call_at(when, later)


class Prepared(RequestFactory):
    """Hands out the workload's requests instead of making new ones."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload.classes, run="run")
        self._requests = {load.request.id: load.request for load in workload.loads}

    def request(
        self, spec: RequestSpec, *, now: float, inside: int | None = None
    ) -> tuple[Request, Callable[[int], None] | None]:
        request = self._requests[int(spec.route)]
        assert now == request.arrived_at
        return request, None


class Live:
    """One provider model, driven by the loop's clock."""

    def __init__(self, provider: Provider, seed: int) -> None:
        self._provider = provider
        self._seed = seed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._replies: dict[int, asyncio.Future[None]] = {}
        self._slots: dict[int, Slot] = {}
        self.attempts = 0

    def luck(self) -> random.Random:
        """The jitter that the engine would draw."""
        live = self

        class Luck(random.Random):
            def random(self) -> float:
                return unit(live._seed, _JITTER_STREAM, live.attempts)

        return Luck()

    async def send(self, slot: Slot, load: Load) -> None:
        """Work on one request until it has ended."""
        while True:
            self.attempts += 1
            job = Job(load.request.id, load.output_tokens, load.request.prompt_tokens)
            now = self._loop.time()
            refusal = self._provider.submit(job, now=now)
            if refusal is not None:
                self._see_limits(slot)
            if refusal is None:
                self._slots[job.id] = slot
                self._replies[job.id] = self._loop.create_future()
                self._arm()
                await self._replies[job.id]
                self._see_limits(slot)
                slot.settle(Usage(load.output_tokens, load.request.prompt_tokens))
                return
            await slot.throttled(RefusalCause(refusal.kind), refusal.retry_after_s)

    def _see_limits(self, slot: Slot) -> None:
        """Tell of the limits that a real answer's headers would state."""
        said: dict[str, Any] = {}
        for what, limit in self._provider.limits(now=self._loop.time()).items():
            if what != "requests_per_day":
                said[f"limit_{what}"] = limit.limit
                said[f"remaining_{what}"] = limit.remaining
                said[f"reset_{what}_s"] = limit.reset_s
        if said:
            slot.driver.tell(LimitsSeen("default", **said))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        at = self._provider.next_event_at()
        self._timer = self._loop.call_at(at, self._happen) if at < float("inf") else None

    def _happen(self) -> None:
        self._timer = None
        self._deliver(deque(self._provider.advance(now=self._loop.time())))

    def _deliver(self, events: deque[ProviderEvent], pause: int = 0) -> None:
        """Let one event have all its consequences before the next of the same instant.

        The engine does the same; otherwise two replies that end together would both be read
        before either has let another request go, and state other limits.
        """
        if pause:
            self._loop.call_soon(self._deliver, events, pause - 1)
            return
        if not events:
            self._arm()
            return
        event = events.popleft()
        if event.what is Happening.FIRST_TOKEN:
            self._slots[event.job_id].first_token()
        else:
            assert event.what is Happening.FINISHED
            self._slots.pop(event.job_id)
            self._replies.pop(event.job_id).set_result(None)
        self._deliver(events, STEPS_OF_A_CONSEQUENCE if events else 0)


async def run_live(
    scheduler: Scheduler, provider: Provider, workload: Workload, *, seed: int, stream: bool
) -> list[Step]:
    """Send the workload through the real gate and return what its scheduler saw and said."""
    tape = Tape()
    live = Live(provider, seed)
    loop = asyncio.get_running_loop()
    driver = Driver(scheduler, clock=TimersLast(loop), observers=[tape])
    gate = Gate(driver, Prepared(workload), chance=live.luck())

    async def caller(load: Load) -> None:
        with contextlib.suppress(Refused):
            async with gate.admit(route=str(load.request.id)) as slot:
                if not stream:
                    slot.first_token = lambda: None  # type: ignore[method-assign]
                await live.send(slot, load)

    tasks: list[asyncio.Task[None]] = []
    arrived = loop.create_future()

    def arrive(load: Load) -> None:
        tasks.append(loop.create_task(caller(load)))
        if len(tasks) == len(workload.loads):
            arrived.set_result(None)

    for load in workload.loads:
        loop.call_at(load.request.arrived_at, arrive, load)
    await arrived
    await asyncio.gather(*tasks)
    return tape.steps
