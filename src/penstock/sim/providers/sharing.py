"""The exact, event-driven server under `slots`, `serial`, `shared`, `thrash` and `pool`.

All jobs in service move at one common speed that changes only when one enters or leaves. So two
clocks of normalised service (one for prefill, one for tokens) stand for all of them: a job's end
is a fixed reading of a clock, and an event costs O(log n), not O(n).

Source:
    Virtual time for processor sharing: Demers, Keshav & Shenker, SIGCOMM 1989.

"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal

from penstock.sim.calls import unit
from penstock.sim.params import count
from penstock.sim.providers.base import (
    Happening,
    Job,
    Occupancy,
    Provider,
    ProviderEvent,
    ProviderRefusal,
)
from penstock.sim.providers.changes import Change, Timeline
from penstock.sim.providers.places import (
    PlacesParams,
    SlotsParams,
    cached_of,
    prefill_s,
    service_factors,
    without_variation,
)

_FIRST_TOKEN = Happening.FIRST_TOKEN
_FINISHED = Happening.FINISHED
SURELY_S = 1e-6
"""An end so much later than a time is later for certain, however the sums are rounded."""


@dataclass(slots=True, eq=False)
class _InService:
    """A job in service.

    Attributes:
        work_tokens: what its reply takes of the token clock: its tokens times the
            service factor.
        token_start: the token clock's reading at its first token.

    """

    job: Job
    work_tokens: float
    cached_tokens: int | None = None
    token_start: float = math.nan
    alive: bool = True


_Entry = tuple[float, int, int, _InService]


class SharingServer(Provider):
    """A provider whose jobs all advance at one speed, with an FCFS queue in front."""

    def __init__(
        self,
        params: PlacesParams,
        changes: Iterable[Change[PlacesParams]] = (),
        *,
        seed: int = 0,
        first_tokens: bool = True,
    ) -> None:
        """Take in nothing yet.

        Args:
            params: the model.
            changes: what becomes of it later; there may be no end of them.
            seed: of what is drawn for each job.
            first_tokens: False if nobody asks for first tokens or for tokens so far; where
                prefill and tokens keep one ratio of speeds, each job is then one event, not two.

        """
        self._changes = Timeline(changes)
        steady = not first_tokens and self._changes.at_s == math.inf
        self._ratio = _steady_ratio(params) if steady else 0.0
        self._seed = seed
        self._queue: OrderedDict[int, Job] = OrderedDict()
        self._running: dict[int, _InService] = {}
        self._prefill: list[_Entry] = []
        self._decode: list[_Entry] = []
        self._entered = 0
        self._at = 0.0
        self._prefill_clock = 0.0
        self._token_clock = 0.0
        self._speeds: dict[int, tuple[float, float]] = {}
        self._use(params)
        self._prefill_speed, self._token_speed = params.speeds(1)
        self._planned = False

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Take the job in: into service if there is a place, else into the hidden queue."""
        if not self._running and self._changes.at_s <= now:
            # Nobody was there to see them; what nobody sees is no event.
            self._use(self._changes.latest(self._params, now=now))
        if len(self._running) < self._places:
            self._move_clocks(now)
            self._enter(job)
            self._set_speeds()
        else:
            self._queue[job.id] = job
        return None

    def cancel(self, job_id: int, *, now: float) -> None:
        """Forget the job and free its place; unknown ids are ignored."""
        running = self._running.pop(job_id, None)
        if running is None:
            self._queue.pop(job_id, None)
            return
        running.alive = False
        self._move_clocks(now)
        self._refill()

    def next_event_at(self) -> float:
        """Return when the next thing happens by itself; inf if nothing will."""
        if not self._planned:
            self._plan_next()
        return self._next_at

    def advance(self, *, now: float) -> list[ProviderEvent]:
        """Return what happened up to and including `now`, in order of time, then job id."""
        out: list[ProviderEvent] = []
        if self.next_event_at() <= now:
            self._step(out)
            while not self._surely_nothing_by(now) and self.next_event_at() <= now:
                self._step(out)
        if len(out) > 1:
            out.sort(key=lambda event: (event.at, event.job_id))
        return out

    def tokens_done(self, job_id: int, *, now: float) -> int:
        """Return how many tokens the job has emitted; 0 for a job that is not in service."""
        running = self._running.get(job_id)
        if running is None or math.isnan(running.token_start):
            return 0
        clock = self._token_clock + self._token_speed * (now - self._at)
        # The nudge keeps a token that is due exactly now from being lost to rounding.
        tokens = running.job.output_tokens
        share = (clock - running.token_start) / running.work_tokens if tokens else 1.0
        done = max(1, int(tokens * share + 1e-9))
        return min(tokens, done)

    def load(self) -> Occupancy:
        """Return how many jobs are being served and how many wait inside."""
        return Occupancy(len(self._running), len(self._queue))

    def become(self, params: PlacesParams, *, now: float) -> None:
        """Go on with these parameters from `now` on (after `advance`)."""
        self._move_clocks(now)
        self._use(params)
        self._refill()

    def _use(self, params: PlacesParams) -> None:
        self._params = params
        self._uniform = without_variation(params)
        self._places = params.places()
        self._speeds.clear()

    def _step(self, out: list[ProviderEvent]) -> None:
        """Let the one next event happen: a change before an end, an end before a first token."""
        at = self._next_at
        if self._changes.at_s <= at:
            self.become(self._changes.pop(), now=at)
        elif self._decode_at <= at:
            key, _, _, running = heappop(self._decode)
            self._move_clocks(at)
            self._token_clock = key
            job_id = running.job.id
            del self._running[job_id]
            out.append(ProviderEvent(at, job_id, _FINISHED, 200, running.cached_tokens))
            self._refill()
        else:
            key, job_id, entered, running = heappop(self._prefill)
            self._move_clocks(at)
            self._prefill_clock = key
            running.token_start = self._token_clock
            end = self._token_clock + running.work_tokens
            heappush(self._decode, (end, job_id, entered, running))
            out.append(ProviderEvent(at, job_id, _FIRST_TOKEN, 200, running.cached_tokens))

    def _enter(self, job: Job) -> None:
        first_s = self._params.ttft_s
        running = _InService(job, job.output_tokens)
        if not self._uniform or job.luck is not None:
            first_s = self._weigh(running)
        self._running[job.id] = running
        self._entered += 1
        if self._ratio:
            work = first_s * self._ratio + running.work_tokens
            heappush(self._decode, (self._token_clock + work, job.id, self._entered, running))
            return
        end = self._prefill_clock + first_s
        heappush(self._prefill, (end, job.id, self._entered, running))

    def _weigh(self, running: _InService) -> float:
        """Set what the job's prompt and service factor add; return its prefill in seconds."""
        params, job = self._params, running.job
        cached = running.cached_tokens = cached_of(params, self._seed, job)
        first, rest = service_factors(params, self._seed, job)
        running.work_tokens *= rest
        return (params.ttft_s + prefill_s(params, job, cached)) * first

    def _refill(self) -> None:
        while self._queue and len(self._running) < self._places:
            self._enter(self._queue.popitem(last=False)[1])
        self._set_speeds()

    def _set_speeds(self) -> None:
        active = len(self._running)
        if active:
            speeds = self._speeds.get(active)
            if speeds is None:
                speeds = self._speeds[active] = self._params.speeds(active)
            self._prefill_speed, self._token_speed = speeds

    def _move_clocks(self, now: float) -> None:
        """Bring both clocks to `now`, at the speeds that held until then."""
        self._planned = False
        if self._running:
            if now == self._at:
                return
            elapsed_s = now - self._at
            self._prefill_clock += self._prefill_speed * elapsed_s
            self._token_clock += self._token_speed * elapsed_s
        elif not self._prefill and not self._decode:
            # Idle: start again from 0, so that a long run loses no precision.
            self._prefill_clock = self._token_clock = 0.0
        self._at = now

    def _surely_nothing_by(self, now: float) -> bool:
        """Return whether nothing more happens by `now`, where that is seen without a plan."""
        if self._prefill or not self._decode or self._changes.at_s <= now:
            return False
        left = self._decode[0][0] - self._token_clock
        return left > self._token_speed * (now - self._at + SURELY_S)

    def _plan_next(self) -> None:
        """Find the next event; put off until somebody asks, as an end is often followed by a start.

        Whatever moves the clocks calls for a new plan; nothing else changes what comes next.
        """
        self._planned = True
        prefill, decode, at = self._prefill, self._decode, self._at
        while decode and not decode[0][3].alive:
            heappop(decode)
        soonest = math.inf
        if decode:
            # Not before `at`: rounding may put the end a hair before the clock's last reading.
            left = decode[0][0] - self._token_clock
            soonest = at + left / self._token_speed if left > 0 else at
        self._decode_at = soonest
        if prefill:
            while prefill and not prefill[0][3].alive:
                heappop(prefill)
            if prefill:
                left = prefill[0][0] - self._prefill_clock
                soonest = min(soonest, at + left / self._prefill_speed if left > 0 else at)
        if self._running and self._changes.at_s < soonest:
            soonest = max(at, self._changes.at_s)
        self._next_at = soonest


def _steady_ratio(params: PlacesParams) -> float:
    """Return tokens per second of prefill if that is the same for any load, else 0."""
    ratios = {round(tokens / prefill, 9) for prefill, tokens in map(params.speeds, (1, 2, 3, 64))}
    return ratios.pop() if len(ratios) == 1 else 0.0


_ROUTE_STREAM = 0x524F


class PoolParams(SlotsParams):
    """So many replicas, each as `slots` is.

    Attributes:
        routing: where a request goes, for good: to any replica with equal chances, to each in
            turn, or to the one that has the least to do (served and waiting; ties to the first).
            Unless it is the last, requests wait at one replica while another one idles.

    Source:
        PAPER.md's provider models; the constants are ours.

    """

    slots: int = count(4)
    replicas: int = count(4, high=10_000)
    routing: Literal["random", "round_robin", "least"] = "random"


class PoolServer(Provider):
    """Routes each job to one of several servers."""

    def __init__(
        self,
        params: PoolParams,
        changes: Sequence[Change[PoolParams]] = (),
        *,
        seed: int = 0,
        first_tokens: bool = True,
    ) -> None:
        self._params = params
        self._changes = Timeline(changes)
        self._seed = seed
        most = max(each.replicas for each in (params, *(c.params for c in changes)))
        self._replicas = [
            SharingServer(params, changes, seed=seed, first_tokens=first_tokens)
            for _ in range(most)
        ]
        self._next_at = [replica.next_event_at() for replica in self._replicas]
        self._where: dict[int, int] = {}
        self._turn = 0

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Hand the job to the replica that the routing says."""
        self._params = self._changes.latest(self._params, now=now)
        number = self._route(job)
        self._where[job.id] = number
        refusal = self._replicas[number].submit(job, now=now)
        self._next_at[number] = self._replicas[number].next_event_at()
        return refusal

    def cancel(self, job_id: int, *, now: float) -> None:
        """Forget the job and free its place; unknown ids are ignored."""
        number = self._where.pop(job_id, None)
        if number is not None:
            self._replicas[number].cancel(job_id, now=now)
            self._next_at[number] = self._replicas[number].next_event_at()

    def next_event_at(self) -> float:
        """Return when the next thing happens in any replica; inf if nothing will."""
        return min(self._next_at)

    def advance(self, *, now: float) -> list[ProviderEvent]:
        """Return what happened in any replica, in order of time, then job id."""
        out: list[ProviderEvent] = []
        for number, at in enumerate(self._next_at):
            if at <= now:
                out += self._replicas[number].advance(now=now)
                self._next_at[number] = self._replicas[number].next_event_at()
        for event in out:
            if event.what is Happening.FINISHED:
                del self._where[event.job_id]
        out.sort(key=lambda event: (event.at, event.job_id))
        return out

    def tokens_done(self, job_id: int, *, now: float) -> int:
        """Return how many tokens the job has emitted."""
        number = self._where.get(job_id)
        return 0 if number is None else self._replicas[number].tokens_done(job_id, now=now)

    def load(self) -> Occupancy:
        """Return how many jobs are being served and how many wait, in all replicas."""
        loads = [replica.load() for replica in self._replicas]
        return Occupancy(sum(each.active for each in loads), sum(each.queued for each in loads))

    def _route(self, job: Job) -> int:
        """Return the number of the replica that the job goes to."""
        replicas = self._params.replicas
        if self._params.routing == "random":
            return int(unit(self._seed, _ROUTE_STREAM, job.id) * replicas)
        if self._params.routing == "least":
            return min(range(replicas), key=self._jobs_at)
        self._turn += 1
        return (self._turn - 1) % replicas

    def _jobs_at(self, number: int) -> int:
        load = self._replicas[number].load()
        return load.active + load.queued
