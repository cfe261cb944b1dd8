"""`linear`: service time fixed at dispatch, linear in tokens, dearer when more are in flight."""

import math
from dataclasses import dataclass
from heapq import heappop, heappush

from penstock.sim.params import count, not_negative, positive
from penstock.sim.providers.base import (
    Happening,
    Job,
    Occupancy,
    Provider,
    ProviderEvent,
    ProviderRefusal,
)
from penstock.sim.providers.changes import Change, Timeline
from penstock.sim.providers.places import Jittered, cached_of, prefill_s, service_factors


class LinearParams(Jittered):
    """(base_s + s_per_token x tokens) x (1 + gamma x max(0, in_flight/capacity - 1)) x jitter.

    `in_flight` counts the request itself; a prompt's prefill adds to `base_s`. The first token
    comes after the share of both in the whole.

    Source:
        The paper's mock, as reconstructed in PAPER.md; the constants are ours.

    """

    base_s: float = not_negative(0.15)
    s_per_token: float = positive(0.003, high=1e3)
    capacity: int = count(8)
    gamma: float = not_negative(0.5, high=1e3)
    jitter: float = not_negative(0.03, high=5.0)


@dataclass(slots=True, eq=False)
class _FixedService:
    job: Job
    first_at: float
    end_at: float
    cached_tokens: int | None
    streaming: bool = False
    alive: bool = True


class LinearServer(Provider):
    """A provider that never queues; what a request takes is settled when it comes in."""

    def __init__(
        self, params: LinearParams, changes: tuple[Change[LinearParams], ...] = (), *, seed: int = 0
    ) -> None:
        self._params = params
        self._changes = Timeline(changes)
        self._seed = seed
        self._flights: dict[int, _FixedService] = {}
        self._due: list[tuple[float, int, int, _FixedService]] = []
        self._taken = 0

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Take the job in and fix its service time; never refuses."""
        p = self._params = self._changes.latest(self._params, now=now)
        over = max(0.0, (len(self._flights) + 1) / p.capacity - 1.0)
        factor = 1.0 + p.gamma * over
        first, rest = service_factors(p, self._seed, job)
        cached = cached_of(p, self._seed, job)
        first_at = now + (p.base_s + prefill_s(p, job, cached)) * factor * first
        end_at = first_at + p.s_per_token * job.output_tokens * factor * rest
        flight = _FixedService(job, first_at, end_at, cached)
        self._flights[job.id] = flight
        self._taken += 1
        heappush(self._due, (first_at, job.id, self._taken, flight))
        return None

    def cancel(self, job_id: int, *, now: float) -> None:
        """Forget the job; unknown ids are ignored."""
        flight = self._flights.pop(job_id, None)
        if flight is not None:
            flight.alive = False
            self._drop_dead()

    def next_event_at(self) -> float:
        """Return when the next thing happens by itself; inf if nothing will."""
        return self._due[0][0] if self._due else math.inf

    def advance(self, *, now: float) -> list[ProviderEvent]:
        """Return what happened up to and including `now`, in order of time, then job id."""
        out: list[ProviderEvent] = []
        while self._due and self._due[0][0] <= now:
            at, job_id, taken, flight = heappop(self._due)
            if not flight.streaming:
                flight.streaming = True
                out.append(_event(at, flight, Happening.FIRST_TOKEN))
                heappush(self._due, (flight.end_at, job_id, taken, flight))
            else:
                del self._flights[job_id]
                out.append(_event(at, flight, Happening.FINISHED))
            self._drop_dead()
        return out

    def tokens_done(self, job_id: int, *, now: float) -> int:
        """Return how many tokens the job has emitted; 0 if it is not in service."""
        flight = self._flights.get(job_id)
        if flight is None or not flight.streaming:
            return 0
        span_s = flight.end_at - flight.first_at
        share = (now - flight.first_at) / span_s if span_s > 0 else 1.0
        done = max(1, int(flight.job.output_tokens * share + 1e-9))
        return min(flight.job.output_tokens, done)

    def load(self) -> Occupancy:
        """Return how many jobs are being served; none waits inside."""
        return Occupancy(len(self._flights), 0)

    def _drop_dead(self) -> None:
        while self._due and not self._due[0][3].alive:
            heappop(self._due)


def _event(at: float, flight: _FixedService, what: Happening) -> ProviderEvent:
    return ProviderEvent(at, flight.job.id, what, cached_tokens=flight.cached_tokens)
