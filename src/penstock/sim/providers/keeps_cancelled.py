"""`keeps_cancelled`: an engine that works on for a caller that has left."""

from dataclasses import replace
from itertools import count

from penstock.sim.providers.base import (
    Happening,
    Job,
    Provider,
    ProviderEvent,
    ProviderRefusal,
    Wrapper,
)

_ALIASES_FROM = 1 << 60
"""Ids that no owner gives: for a job that comes back while its first attempt is still worked on."""


class KeepsCancelled(Wrapper):
    """Hears of no cancellation: the work goes on, and its end is told to nobody."""

    def __init__(self, inner: Provider) -> None:
        super().__init__(inner)
        self._inside: dict[int, int] = {}  # the id inside, by the owner's, while a caller waits
        self._owners: dict[int, int] = {}  # and the other way round
        self._left: set[int] = set()
        self._aliases = count(_ALIASES_FROM)

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Pass the job on, under another id if an attempt that was left has its own."""
        inside = next(self._aliases) if job.id in self._left else job.id
        refusal = self._inner.submit(replace(job, id=inside), now=now)
        if refusal is None:
            self._inside[job.id], self._owners[inside] = inside, job.id
        return refusal

    def cancel(self, job_id: int, *, now: float) -> None:
        """Note that nobody waits any more; what the job holds stays held until its end."""
        inside = self._inside.pop(job_id, None)
        if inside is not None:
            del self._owners[inside]
            self._left.add(inside)

    def advance(self, *, now: float) -> list[ProviderEvent]:
        """Return what happened to the jobs whose callers wait."""
        passed: list[ProviderEvent] = []
        for event in self._inner.advance(now=now):
            inside = event.job_id
            ended = event.what is not Happening.FIRST_TOKEN
            if inside in self._left:
                if ended:
                    self._left.remove(inside)
                continue
            event.job_id = self._owners[inside]
            if ended:
                del self._inside[event.job_id], self._owners[inside]
            passed.append(event)
        return passed

    def tokens_done(self, job_id: int, *, now: float) -> int:
        """Return how many tokens of the job have been emitted; 0 if nobody waits for it."""
        inside = self._inside.get(job_id)
        return 0 if inside is None else self._inner.tokens_done(inside, now=now)
