"""`autoscale`: replicas that come when all are busy and go when one is not needed."""

import math
from collections.abc import Sequence

from penstock.schema.types import Complaints
from penstock.sim.params import count, not_negative, positive
from penstock.sim.providers.base import Job, ProviderEvent, ProviderRefusal, Wrapper
from penstock.sim.providers.changes import Change, Timeline
from penstock.sim.providers.places import Jittered, SlotsParams
from penstock.sim.providers.sharing import SharingServer


class AutoscaleParams(Jittered):
    """From `least` to `most` replicas with `slots` places each and one hidden queue for all.

    Attributes:
        step_after_s: once every place has been taken for so long, one more replica is started.
        cold_start_s: how long a start takes.
        idle_s: once so much room that one replica fewer would do has been free for so long, one
            goes; what it serves, it finishes.

    Source:
        PAPER.md's provider models; the rule and the constants are ours.

    """

    least: int = count(1)
    most: int = count(8)
    slots: int = count(4)
    tokens_per_s: float = positive(200.0, low=1e-3)
    ttft_s: float = not_negative(0.15)
    step_after_s: float = not_negative(5.0)
    cold_start_s: float = not_negative(20.0)
    idle_s: float = positive(60.0, low=1e-3)

    def of(self, replicas: int) -> SlotsParams:
        """Return what so many replicas are together."""
        return SlotsParams(
            slots=replicas * self.slots,
            tokens_per_s=self.tokens_per_s,
            ttft_s=self.ttft_s,
            jitter=self.jitter,
            stragglers=self.stragglers,
            prefill_tokens_per_s=self.prefill_tokens_per_s,
            cached_share=self.cached_share,
        )

    def complaints(self) -> Complaints:
        """Yield bounds that contradict each other."""
        if self.most < self.least:
            yield "most", "must be at least least"


class AutoscaleServer(Wrapper):
    """A server with places whose number follows the load."""

    _inner: SharingServer

    def __init__(
        self,
        params: AutoscaleParams,
        changes: Sequence[Change[AutoscaleParams]] = (),
        *,
        seed: int = 0,
        first_tokens: bool = True,
    ) -> None:
        self._params = params
        self._changes = Timeline(changes)
        self._ready = params.least
        self._starting: list[float] = []
        self._full_since = self._spare_since = math.inf
        self._last_full = (math.inf, math.inf)
        # With changes the ratio of prefill to decoding may change, and both need their events.
        events = first_tokens or bool(changes)
        super().__init__(SharingServer(params.of(params.least), seed=seed, first_tokens=events))

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Take the job in."""
        refusal = self._inner.submit(job, now=now)
        self._look(now)
        return refusal

    def cancel(self, job_id: int, *, now: float) -> None:
        """Forget the job and free its place; unknown ids are ignored."""
        self._inner.cancel(job_id, now=now)
        self._look(now)

    def next_event_at(self) -> float:
        """Return when the next thing happens by itself; inf if nothing will."""
        return min(self._inner.next_event_at(), self._scales_at())

    def advance(self, *, now: float) -> list[ProviderEvent]:
        """Return what happened up to and including `now`, in order of time, then job id."""
        out: list[ProviderEvent] = []
        while (at := self.next_event_at()) <= now:
            out += self._inner.advance(now=at)
            self._look(at)
            if self._scales_at() <= at:
                self._scale(at)
                self._look(at)
        return out

    def _scales_at(self) -> float:
        """Return when a replica is ready, started or taken away, or a change comes."""
        p = self._params
        soonest = min(self._changes.at_s, min(self._starting, default=math.inf))
        if self._ready + len(self._starting) < p.most:
            soonest = min(soonest, self._full_since + p.step_after_s)
        return min(soonest, self._spare_since + p.idle_s)

    def _scale(self, now: float) -> None:
        """Let all happen that is due."""
        self._params = p = self._changes.latest(self._params, now=now)
        came = [at for at in self._starting if at <= now]
        self._starting = [at for at in self._starting if at > now]
        self._ready = min(p.most, max(p.least, self._ready + len(came)))
        if self._full_since + p.step_after_s <= now:
            self._full_since = now
            if self._ready + len(self._starting) < p.most:
                self._starting.append(now + p.cold_start_s)
        if self._spare_since + p.idle_s <= now:
            self._spare_since = math.inf
            self._ready = max(p.least, self._ready - 1)
        self._inner.become(p.of(self._ready), now=now)

    def _look(self, now: float) -> None:
        """Note since when all places are taken, and since when one replica fewer would do.

        A place that is free for no time, because the next request takes it at once, is not free.
        """
        p, load = self._params, self._inner.load()
        jobs = load.active + load.queued
        if jobs < self._ready * p.slots:
            if self._full_since < math.inf:
                self._last_full = (now, self._full_since)
                self._full_since = math.inf
        elif self._full_since == math.inf:
            ended_at, since = self._last_full
            self._full_since = since if ended_at == now else now
        if self._ready <= p.least or jobs > (self._ready - 1) * p.slots:
            self._spare_since = math.inf
        elif self._spare_since == math.inf:
            self._spare_since = now
