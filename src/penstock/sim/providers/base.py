"""What every provider model answers to: the engine's virtual clock and the HTTP mock's real one.

A provider is a black box that is told the time. Nothing in `core` or `policies` may look at it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from typing import Protocol


class Happening(StrEnum):
    """What can happen to a job inside a provider."""

    FIRST_TOKEN = "first_token"
    FINISHED = "finished"
    BROKEN = "broken"
    """The connection was reset or an error was returned; `status` tells (0 = reset)."""
    STALLED = "stalled"
    """No further token will ever come; the client must give up by itself."""


@dataclass(slots=True)
class Job:
    """One attempt: its id, the reply's true length, and the prompt's.

    Attributes:
        luck: by what factors its service takes longer than its tokens say, up to its first token
            and after it; None to draw it.
        cached_tokens: of the prompt; None to draw it where there is a prompt cache.

    """

    id: int
    output_tokens: int
    prompt_tokens: int = 0
    luck: tuple[float, float] | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ProviderRefusal:
    """An attempt refused at the door.

    Attributes:
        status: the HTTP status.
        retry_after_s: how long the provider asks the client to wait, or None if it does not say.
        headers: what the answer carries, `retry-after` included.
        kind: "rate" (429 for a moment), "quota" (429, the account is spent), "overload" (503
            or 529) or "error" (any other status); the mock words its error body after it.

    """

    status: int
    retry_after_s: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "error"


@dataclass(slots=True)
class ProviderEvent:
    """Something that happened to a job at a time (driver seconds).

    Attributes:
        status: the HTTP status, where it is no success.
        cached_tokens: how many of the prompt's tokens the provider's prompt cache held, as its
            usage states them; None if it has no such cache.

    """

    at: float
    job_id: int
    what: Happening
    status: int = 200
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit as it stands: what it allows, what is left, and when it will be full again."""

    limit: float
    remaining: float
    reset_s: float


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How full a provider is: what is being served, and what waits inside, hidden from clients."""

    active: int
    queued: int


class Provider(Protocol):
    """A hidden provider, driven by its owner's clock (never decreasing).

    The owner calls `advance` up to `now` before it submits or cancels at `now`: a provider is not
    asked to catch up by itself.
    One that inherits from this states no limits unless it says so.
    """

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Take the job in, or say why not."""
        ...

    def cancel(self, job_id: int, *, now: float) -> None:
        """Forget the job and free what it holds; unknown ids are ignored."""
        ...

    def next_event_at(self) -> float:
        """Return when the next thing happens by itself; inf if nothing will."""
        ...

    def advance(self, *, now: float) -> list[ProviderEvent]:
        """Return all that happened up to and including `now`, in order of time, then job id."""
        ...

    def tokens_done(self, job_id: int, *, now: float) -> int:
        """Return how many tokens of the job have been emitted by `now` (after `advance`)."""
        ...

    def headers(self, *, now: float) -> dict[str, str]:
        """Return the rate-limit headers that an answer would carry now; empty if none."""
        return {}

    def limits(self, *, now: float) -> Mapping[str, Limit]:
        """Return the limits that the provider states, by name; empty if it states none.

        Names: requests, tokens, input_tokens, output_tokens (a minute), requests_per_day.
        """
        return {}

    def load(self) -> Occupancy:
        """Return how many jobs are being served and how many wait inside."""
        ...


class Wrapper:
    """A provider in front of another one: passes everything on; a subclass says what it alters."""

    def __init__(self, inner: Provider) -> None:
        self._inner = inner

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Pass the job on."""
        return self._inner.submit(job, now=now)

    def cancel(self, job_id: int, *, now: float) -> None:
        """Pass the cancellation on."""
        self._inner.cancel(job_id, now=now)

    def next_event_at(self) -> float:
        """Return the inner provider's next event."""
        return self._inner.next_event_at()

    def advance(self, *, now: float) -> list[ProviderEvent]:
        """Return what happened inside."""
        return self._inner.advance(now=now)

    def tokens_done(self, job_id: int, *, now: float) -> int:
        """Return the inner provider's count."""
        return self._inner.tokens_done(job_id, now=now)

    def headers(self, *, now: float) -> dict[str, str]:
        """Return the inner provider's headers."""
        return self._inner.headers(now=now)

    def limits(self, *, now: float) -> Mapping[str, Limit]:
        """Return the inner provider's limits."""
        return self._inner.limits(now=now)

    def load(self) -> Occupancy:
        """Return the inner provider's load."""
        return self._inner.load()


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
