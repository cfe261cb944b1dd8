"""Spells: for a while everything inside a provider goes slower, as on a shared machine.

A slowed provider is the same provider on a slower clock. So one wrapper serves all models: it
converts the owner's time into the provider's, and back.
"""

import math
from collections.abc import Mapping

from penstock.errors import ConfigError
from penstock.schema.reading import read_params
from penstock.schema.types import Complaints, Table
from penstock.sim.chance import unit
from penstock.sim.params import positive
from penstock.sim.providers.base import Job, Provider, ProviderEvent, ProviderRefusal, Wrapper

_START_STREAM = 0x5350


class Spells(Table):
    """Once in every `every_s`, at a time drawn, the speed falls to the factor for `for_s`."""

    factor: float = positive(0.1, low=1e-3, high=1.0)
    every_s: float = positive(60.0, low=1e-3)
    for_s: float = positive(10.0, low=1e-3)

    def complaints(self) -> Complaints:
        """Yield a spell that never ends."""
        if self.for_s >= self.every_s:
            yield "for_s", "must be below every_s, or none ends"


def read_spells(table: object, *, where: str) -> Spells:
    """Return the spells.

    Raises:
        ConfigError: no table, an unknown key, a value against its rule.

    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} = {table!r}: must be a table with factor, every_s, for_s")
    return read_params(Spells, table, where=where)


class SpellClock:
    """Turns the owner's seconds into the provider's, and back; both start at 0 and only grow."""

    def __init__(self, spells: Spells, *, seed: int) -> None:
        self._spells = spells
        self._seed = seed
        self._slow_s = spells.for_s * spells.factor
        self._lost_s = spells.for_s - self._slow_s
        self._period_s = spells.every_s - self._lost_s  # of each period, by the provider's clock

    def to_provider_s(self, at: float) -> float:
        """Return what the provider's clock shows at the owner's time `at`."""
        spells = self._spells
        period = math.floor(at / spells.every_s)
        since = at - period * spells.every_s
        start = self._start(period)
        if since > start + spells.for_s:
            since -= self._lost_s
        elif since > start:
            since = start + (since - start) * spells.factor
        return period * self._period_s + since

    def to_owner_s(self, provider_at: float) -> float:
        """Return the owner's time at which the provider's clock shows `provider_at`."""
        spells = self._spells
        period = math.floor(provider_at / self._period_s)
        since = provider_at - period * self._period_s
        start = self._start(period)
        if since > start + self._slow_s:
            since += self._lost_s
        elif since > start:
            since = start + (since - start) / spells.factor
        return period * spells.every_s + since

    def _start(self, period: int) -> float:
        """Return how long after the period's begin its spell does."""
        room_s = self._spells.every_s - self._spells.for_s
        return unit(self._seed, _START_STREAM, period) * room_s


class SlowedServer(Wrapper):
    """A provider on the clock of its spells."""

    def __init__(self, inner: Provider, clock: SpellClock) -> None:
        super().__init__(inner)
        self._clock = clock
        self._now = 0.0
        self._provider_now = 0.0
        self._due = (math.inf, math.inf)

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Take the job in at the provider's time."""
        return self._inner.submit(job, now=self._at(now))

    def cancel(self, job_id: int, *, now: float) -> None:
        """Forget the job at the provider's time."""
        self._inner.cancel(job_id, now=self._at(now))

    def next_event_at(self) -> float:
        """Return when, by the owner's clock, the next thing happens."""
        provider_at = self._inner.next_event_at()
        if provider_at == math.inf:
            return provider_at
        if provider_at != self._due[1]:
            self._due = (max(self._now, self._clock.to_owner_s(provider_at)), provider_at)
        return self._due[0]

    def advance(self, *, now: float) -> list[ProviderEvent]:
        """Return what happened, by the owner's clock."""
        before = self._now
        events = self._inner.advance(now=self._at(now))
        for event in events:
            event.at = min(now, max(before, self._clock.to_owner_s(event.at)))
        return events

    def tokens_done(self, job_id: int, *, now: float) -> int:
        """Return how many tokens of the job have been emitted."""
        return self._inner.tokens_done(job_id, now=self._at(now))

    def _at(self, now: float) -> float:
        """Return the provider's time; never before what it has been told, however sums round."""
        due_at, due = self._due
        provider_at = self._clock.to_provider_s(now)
        if now >= due_at:
            provider_at = max(provider_at, due)
        self._now = now
        self._provider_now = max(self._provider_now, provider_at)
        return self._provider_now
