"""A provider model on a running event loop: the loop's clock in place of the virtual one."""

import asyncio
import math

from penstock.sim.providers.base import (
    Happening,
    Job,
    Occupancy,
    Provider,
    ProviderEvent,
    ProviderRefusal,
)


class LiveJob:
    """One job inside the live provider, as the handler that waits for it sees it.

    Attributes:
        end: how the job ended, or None while it runs.
        cached_tokens: of the prompt, from the first token on.

    """

    def __init__(self, live: "LiveProvider", job: Job) -> None:
        self.job = job
        self.end: ProviderEvent | None = None
        self.cached_tokens = 0
        self._live = live
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait until more tokens may be there or the job has ended."""
        await self._changed.wait()
        self._changed.clear()

    async def finished(self) -> None:
        """Wait until the job has ended."""
        while self.end is None:
            await self.change()

    def tokens_done(self) -> int:
        """Return how many tokens of the reply exist by now."""
        done = self._live.tokens_done(self.job.id)
        # Only now: looking may have been what brought the end, and what has ended has no count.
        if self.end is not None and self.end.what is Happening.FINISHED:
            return self.job.output_tokens
        return done

    def wake(self) -> None:
        """Make whoever waits look again."""
        self._changed.set()


class LiveProvider:
    """Drives one provider model in real time and wakes the handlers of its jobs.

    Events keep the model's exact times; a late timer makes the handlers late, not the model.
    """

    def __init__(self, provider: Provider, *, tick_s: float) -> None:
        self._provider = provider
        self._tick_s = tick_s
        self._loop = asyncio.get_running_loop()
        self._zero = self._loop.time()
        self._tickets: dict[int, LiveJob] = {}
        self._streams: dict[int, LiveJob] = {}
        self._last_id = 0
        self._timer: asyncio.Handle | None = None
        self._timer_at = math.inf
        self._ticker: asyncio.Handle | None = None
        self.peak_active = 0
        self.peak_queued = 0

    def now(self) -> float:
        """Return the seconds since the provider started."""
        return self._loop.time() - self._zero

    def submit(
        self, *, output_tokens: int, prompt_tokens: int, stream: bool
    ) -> LiveJob | ProviderRefusal:
        """Hand the provider a job; `stream` asks to be woken at every tick."""
        now = self._catch_up()
        self._last_id += 1
        job = Job(self._last_id, output_tokens, prompt_tokens)
        refusal = self._provider.submit(job, now=now)
        if refusal is not None:
            self._set_timer()
            return refusal
        ticket = self._tickets[job.id] = LiveJob(self, job)
        self._note_load()
        if stream:
            self._streams[job.id] = ticket
            if self._ticker is None:
                self._ticker = self._loop.call_later(self._tick_s, self._tick)
        self._set_timer()
        return ticket

    def release(self, ticket: LiveJob) -> None:
        """Free whatever the job still holds."""
        now = self._catch_up()
        self._streams.pop(ticket.job.id, None)
        self._tickets.pop(ticket.job.id, None)
        self._provider.cancel(ticket.job.id, now=now)
        self._set_timer()

    def tokens_done(self, job_id: int) -> int:
        """Return how many tokens the provider has emitted for the job."""
        return self._provider.tokens_done(job_id, now=self._catch_up())

    def headers(self) -> dict[str, str]:
        """Return the rate-limit headers that an answer carries now."""
        return self._provider.headers(now=self._catch_up())

    def load(self) -> Occupancy:
        """Return how many jobs are being served and how many wait inside."""
        self._catch_up()
        return self._provider.load()

    def _catch_up(self) -> float:
        """Let the provider come to the present, wake whom it concerns, and return the present."""
        now = self.now()
        for event in self._provider.advance(now=now):
            if event.what is Happening.FIRST_TOKEN:
                ticket = self._tickets.get(event.job_id)
            else:
                ticket = self._tickets.pop(event.job_id, None)
                if ticket is not None:
                    ticket.end = event
            if ticket is not None:
                ticket.cached_tokens = event.cached_tokens or 0
                ticket.wake()
        return now

    def _note_load(self) -> None:
        load = self._provider.load()
        self.peak_active = max(self.peak_active, load.active)
        self.peak_queued = max(self.peak_queued, load.queued)

    def _wake(self) -> None:
        self._timer = None
        self._catch_up()
        self._note_load()  # an engine takes up at its iteration's end what was submitted before
        self._set_timer()

    def _tick(self) -> None:
        self._ticker = None
        if self._streams:
            self._ticker = self._loop.call_later(self._tick_s, self._tick)
        for ticket in self._streams.values():
            ticket.wake()

    def _set_timer(self) -> None:
        at = self._provider.next_event_at()
        if self._timer is not None:
            if self._timer_at == at:
                return
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            # Kept here, because uvloop's handle of a time that has passed cannot tell it.
            self._timer_at = at
            self._timer = self._loop.call_at(self._zero + at, self._wake)
