"""`pool`: replicas behind a balancer, each with places and a hidden queue of its own."""

from collections.abc import Sequence
from typing import Literal

from penstock.sim.chance import unit
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
from penstock.sim.providers.places import SlotsParams
from penstock.sim.providers.sharing import SharingServer

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
