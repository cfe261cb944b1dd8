"""`faulty`: windows of errors, slow first bytes, stalls, resets; spells, in which all is slower.

A slowed provider is the same provider on a slower clock. So one wrapper serves all models: it
converts the owner's time into the provider's, and back.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import Literal

from penstock.errors import ConfigError
from penstock.schema.reading import read_params
from penstock.schema.types import Complaints, Table
from penstock.sim.calls import unit
from penstock.sim.params import count, not_negative, positive
from penstock.sim.providers.base import (
    Happening,
    Job,
    Occupancy,
    Provider,
    ProviderEvent,
    ProviderRefusal,
    Wrapper,
)

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


_SHARE_STREAM = 0x4654
_MET_MAX = 10_000
_OVERLOADS = (503, 529)
_KIND_KEYS: dict[str, tuple[str, ...]] = {
    "status": ("status", "retry_after_s"),
    "slow_first_token": ("delay_s",),
    "stall": ("after_tokens",),
    "reset": ("after_tokens",),
}


class FaultWindow(Table):
    """From `from_s` until `until_s`, a share of the jobs submitted meets this fault.

    Attributes:
        kind: `status` answers `status` at the door; `slow_first_token` holds the job `delay_s`
            before it reaches the provider; `stall` sends nothing after `after_tokens`, for
            ever; `reset` breaks the connection there.
        share: which share of the attempts, in [0, 1]; a job that is sent again is drawn again.
        retry_after_s: what a `status` answer asks for; None if nothing.

    """

    kind: Literal["status", "slow_first_token", "stall", "reset"]
    from_s: float = not_negative(0.0)
    until_s: float = not_negative(1e12, high=1e12)
    share: float = not_negative(1.0, high=1.0)
    status: int = count(503, low=400, high=599)
    retry_after_s: float | None = positive(None)
    delay_s: float = not_negative(10.0)
    after_tokens: int = count(1, low=0)

    def complaints(self) -> Complaints:
        """Yield a window that is never open, and keys of another kind of fault."""
        if self.until_s <= self.from_s:
            yield "until_s", "must be later than from_s"
        takes = _KIND_KEYS[self.kind]
        for key in dict.fromkeys(key for keys in _KIND_KEYS.values() for key in keys):
            if key in self.model_fields_set and key not in takes:
                yield key, f"does nothing: kind = {self.kind!r} takes {', '.join(takes)}"


def read_windows(tables: object, *, where: str) -> tuple[FaultWindow, ...]:
    """Return the windows, in the order given; where two overlap the first one holds.

    Raises:
        ConfigError: no list of tables, an unknown key, a value against its rule.

    """
    if tables is None:
        raise ConfigError(f"{where}: is missing: it must be a list of at least one table")
    if not isinstance(tables, Sequence) or isinstance(tables, str) or not tables:
        raise ConfigError(f"{where} = {tables!r}: must be a list of at least one table")
    return tuple(
        read_params(FaultWindow, table, where=f"{where}[{n}]") for n, table in enumerate(tables)
    )


class FaultyServer(Wrapper):
    """Adds trouble on the way to the inner provider."""

    def __init__(self, windows: tuple[FaultWindow, ...], inner: Provider, *, seed: int = 0) -> None:
        super().__init__(inner)
        self._windows = windows
        self._seed = seed
        self._held: list[tuple[float, int, Job]] = []
        self._held_ids: dict[int, float] = {}
        self._cut: dict[int, tuple[Happening, int]] = {}
        self._met: dict[int, int] = {}  # how many faults a job has met, until it meets none
        self._stalled: dict[int, int] = {}

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Refuse, hold back, shorten or pass on the job, as the window says that holds now."""
        window = self._window_for(job, now)
        if window is None:
            return self._inner.submit(job, now=now)
        if window.kind == "status":
            return _status_refusal(window)
        if window.kind == "slow_first_token":
            heappush(self._held, (now + window.delay_s, job.id, job))
            self._held_ids[job.id] = now + window.delay_s
            return None
        kept = min(window.after_tokens, job.output_tokens)
        refusal = self._inner.submit(replace(job, output_tokens=kept), now=now)
        if refusal is None:
            what = Happening.STALLED if window.kind == "stall" else Happening.BROKEN
            self._cut[job.id] = (what, kept)
        return refusal

    def cancel(self, job_id: int, *, now: float) -> None:
        """Forget the job, wherever it is."""
        self._held_ids.pop(job_id, None)
        self._cut.pop(job_id, None)
        self._stalled.pop(job_id, None)
        self._inner.cancel(job_id, now=now)

    def next_event_at(self) -> float:
        """Return when the next held job goes on or the inner provider has an event."""
        while self._held and self._held_ids.get(self._held[0][1]) != self._held[0][0]:
            heappop(self._held)
        held_at = self._held[0][0] if self._held else math.inf
        return min(held_at, self._inner.next_event_at())

    def advance(self, *, now: float) -> list[ProviderEvent]:
        """Return what happened, each end turned into the fault that was laid on its job."""
        out: list[ProviderEvent] = []
        while (at := self.next_event_at()) <= now:
            out.extend(self._altered(event) for event in self._inner.advance(now=at))
            while self._held and self._held[0][0] <= at:
                self._release(heappop(self._held), out)
        return out

    def tokens_done(self, job_id: int, *, now: float) -> int:
        """Return the inner provider's count; a stalled job keeps what it had."""
        if job_id in self._stalled:
            return self._stalled[job_id]
        return self._inner.tokens_done(job_id, now=now)

    def load(self) -> Occupancy:
        """Return the inner load; held and stalled jobs count as being served."""
        inner = self._inner.load()
        return Occupancy(inner.active + len(self._held_ids) + len(self._stalled), inner.queued)

    def _window_for(self, job: Job, now: float) -> FaultWindow | None:
        before = self._met.pop(job.id, 0)
        for number, window in enumerate(self._windows):
            if not window.from_s <= now < window.until_s:
                continue
            stream = _SHARE_STREAM + number + before * len(self._windows)
            if window.share >= 1 or unit(self._seed, stream, job.id) < window.share:
                self._met[job.id] = before + 1
                if len(self._met) > _MET_MAX:
                    del self._met[next(iter(self._met))]
                return window
        return None

    def _release(self, held: tuple[float, int, Job], out: list[ProviderEvent]) -> None:
        """Hand a job on whose delay is over, unless it was cancelled or sent again meanwhile."""
        at, job_id, job = held
        if self._held_ids.get(job_id) != at:
            return
        del self._held_ids[job_id]
        refusal = self._inner.submit(job, now=at)
        if refusal is not None:
            out.append(ProviderEvent(at, job_id, Happening.BROKEN, refusal.status))

    def _altered(self, event: ProviderEvent) -> ProviderEvent:
        if event.what is not Happening.FINISHED or event.job_id not in self._cut:
            return event
        what, kept = self._cut.pop(event.job_id)
        if what is Happening.STALLED:
            self._stalled[event.job_id] = kept
        return ProviderEvent(event.at, event.job_id, what, 0, event.cached_tokens)


def _status_refusal(window: FaultWindow) -> ProviderRefusal:
    headers = {}
    if window.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(window.retry_after_s))
    if window.status == 429:
        kind = "rate"
    else:
        kind = "overload" if window.status in _OVERLOADS else "error"
    return ProviderRefusal(window.status, window.retry_after_s, headers, kind)
