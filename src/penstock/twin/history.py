"""What a decision log says of the traffic and of the provider: calls, and attempts at them."""

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from penstock.core.events import (
    Abandoned,
    Arrived,
    Cancelled,
    Completed,
    Defer,
    Dispatch,
    DriverStalled,
    Event,
    Failed,
    FirstToken,
    Reconfigured,
    Reject,
    Throttled,
    WindowMoved,
)
from penstock.core.model import Request, bucket_of
from penstock.core.settings import Settings
from penstock.errors import PenstockError
from penstock.log.format import Header, LogRecord
from penstock.metrics import RequestOutcome, RequestRecord

Floats = npt.NDArray[np.float64]
_AT_THE_DOOR = frozenset(("rate", "quota", "overload", "denied", "request"))
_RESULTS = {"upstream": RequestOutcome.FAILED}


class TooLittle(PenstockError, ValueError):
    """A log from which nothing can be learnt; the text says what is missing."""


@dataclass(slots=True)
class Attempt:
    """One sending of one call.

    Attributes:
        call: the call's place in `History.calls`.
        first_at: when its first token was seen; nan if none was.
        ended_at: nan if it has not ended.
        end: "completed", "failed", "cancelled", "open", or the cause of a refusal.
        jitter: of the pause that followed a refusal, in [0, 1).

    """

    call: int
    upstream: str
    sent_at: float
    first_at: float = math.nan
    ended_at: float = math.nan
    end: str = "open"
    output_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    retry_after_s: float | None = None
    jitter: float = 0.0

    @property
    def refused(self) -> bool:
        """Whether it was refused at the door."""
        return self.end in _AT_THE_DOOR


@dataclass(slots=True)
class Call:
    """One request, and what became of it.

    Attributes:
        request: as the scheduler saw it, its times on the history's clock.
        output_tokens: the real count; the predicted median where no reply ended.
        prompt_tokens: the real count, else the one counted before.
        ended_at: nan while it has not ended. outcome: how; None while it has not.
        left_at: when its caller went away; inf if it did not.

    """

    request: Request
    output_tokens: int
    prompt_tokens: int
    ended_at: float = math.nan
    outcome: RequestOutcome | None = None
    left_at: float = math.inf
    attempts: int = 0

    def record(self) -> RequestRecord:
        """Return what really happened, as metrics take it."""
        request = self.request
        return RequestRecord(
            bucket_of(self.output_tokens),
            request.arrived_at,
            request.deadline,
            self.ended_at,
            self.outcome or RequestOutcome.FAILED,
        )


@dataclass(slots=True)
class History:
    """One run of a log, from its last change of settings on; its clock starts at 0.

    Attributes:
        run: the first part of its requests' ids.
        settings: what the scheduler went by.
        calls: in order of arrival. attempts: in order of sending.
        events: everything that the scheduler was told, with its time.
        started_unix_s: seconds since 1970 at its clock's 0.
        whole: whether it begins with the run, so that the scheduler's state is known throughout.
        until: when the log ends.
        earlier_calls: how many the run had before, under other settings.

    """

    run: str
    settings: Settings
    calls: list[Call] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    started_unix_s: float = 0.0
    whole: bool = True
    until: float = 0.0
    earlier_calls: int = 0

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The names of the upstreams that something was sent to, in the settings' order."""
        used = {each.upstream for each in self.attempts}
        return tuple(u.name for u in self.settings.upstreams if u.name in used)

    def past(self, until: float) -> list[tuple[float, Event]]:
        """Return what the scheduler was told before then; nothing if its state was not known."""
        if not self.whole:
            return []
        return self.events[: bisect_left(self.events, until, key=lambda each: each[0])]

    def streamed(self) -> float:
        """Return the share of the complete replies whose first token was seen."""
        seen = [not math.isnan(a.first_at) for a in self.attempts if a.end == "completed"]
        return sum(seen) / len(seen) if seen else 0.0

    def refusal_s(self) -> float:
        """Return the mean time until a refusal was heard of."""
        late_s = [a.ended_at - a.sent_at for a in self.attempts if a.refused]
        return sum(late_s) / len(late_s) if late_s else 0.0


def history_of(lines: Iterable[LogRecord], *, run: str | None = None) -> History:
    """Return the history of the log's last run, or of the run of that name.

    Raises:
        TooLittle: there is no such run, or no request in it, or its header has no settings.

    """
    reading: _Reading | None = None
    for line in lines:
        if run not in (None, line.header.run):
            continue
        if reading is None or line.header.run != reading.run:
            if line.header.settings is None:
                raise TooLittle("the log's header has no settings: was it written by a test?")
            reading = _Reading(line.header, line.header.settings)
        reading.take(line)
    if reading is None or not reading.history.calls:
        of_run = f" of run {run}" if run else ""
        since = " since its settings last changed" if reading and reading.changed else ""
        raise TooLittle(f"no request stands in the log{of_run}{since}")
    return reading.history


class _Reading:
    """Puts a run's lines together."""

    def __init__(self, header: Header, settings: Settings) -> None:
        self.run = header.run
        self._start = header.started_at
        self._unix_s = header.started_unix_s - header.started_at
        self.history = History(self.run, settings, started_unix_s=header.started_unix_s)
        self._calls: dict[int, int] = {}
        self._flying: dict[int, Attempt] = {}
        self.changed = False

    def take(self, line: LogRecord) -> None:
        what, now = line.what, line.now - self._start
        self.history.until = max(self.history.until, now)
        if isinstance(what, Reconfigured):
            self._again(what.settings, line.now)
        elif isinstance(what, Dispatch | Reject):
            self._decided(what, now)
        elif not isinstance(what, Defer | Abandoned | WindowMoved):
            event = self._here(what, now)
            if event is not None:
                self.history.events.append((now, event))

    def _here(self, what: Event, now: float) -> Event | None:
        """Return the event with this history's numbers and times; None if it is about nobody."""
        if isinstance(what, Arrived):
            return Arrived(self._arrived(what.request))
        if isinstance(what, DriverStalled):
            return replace(what, since=what.since - self._start)
        if isinstance(what, FirstToken | Completed | Throttled | Failed | Cancelled):
            self._heard(what, now)
            number = self._number_of(what.request_id)
            return None if number is None else replace(what, request_id=number)
        return what

    def _again(self, settings: Settings, now: float) -> None:
        """Begin anew: what was decided by other settings says nothing about these."""
        before = self.history.earlier_calls + len(self.history.calls)
        self.history = History(
            self.run,
            settings,
            started_unix_s=self._unix_s + now,
            whole=False,
            earlier_calls=before,
        )
        self.changed = True
        self._start = now
        self._calls.clear()
        self._flying.clear()

    def _arrived(self, request: Request) -> Request:
        at = request.arrived_at - self._start
        if not self._calls and request.id != 1:
            self.history.whole = False
        here = replace(
            request,
            id=len(self.history.calls) + 1,
            arrived_at=at,
            deadline=request.deadline - self._start,
            expires_at=request.expires_at - self._start,
            leaves_at=request.leaves_at - self._start,
            inside=None if request.inside is None else self._number_of(request.inside),
        )
        self._calls[request.id] = len(self.history.calls)
        tokens = round(request.estimate.p50_tokens)
        self.history.calls.append(Call(here, tokens, request.prompt_tokens))
        return here

    def _number_of(self, id_: int) -> int | None:
        place = self._calls.get(id_)
        return None if place is None else place + 1

    def _decided(self, what: Dispatch | Reject, now: float) -> None:
        place = self._calls.get(what.request.id)
        if place is None:
            return
        call = self.history.calls[place]
        if isinstance(what, Reject):
            call.ended_at = now
            call.outcome = _RESULTS.get(what.reason, RequestOutcome.SHED)
            return
        call.attempts += 1
        attempt = Attempt(
            place, what.upstream, now, output_tokens=call.output_tokens,
            prompt_tokens=call.prompt_tokens,
        )  # fmt: skip
        self._flying[what.request.id] = attempt
        self.history.attempts.append(attempt)

    def _heard(
        self, what: FirstToken | Completed | Throttled | Failed | Cancelled, now: float
    ) -> None:
        place, attempt = self._calls.get(what.request_id), self._flying.get(what.request_id)
        if place is None:
            return
        call = self.history.calls[place]
        if isinstance(what, FirstToken):
            if attempt is not None:
                attempt.first_at = now
            return
        if isinstance(what, Cancelled):
            if call.outcome is not None:
                return
            call.left_at = now
        if attempt is not None:
            del self._flying[what.request_id]
            attempt.ended_at = now
            attempt.end = _end_of(what)
        if isinstance(what, Completed):
            self._completed(call, attempt, what)
        elif isinstance(what, Throttled) and attempt is not None:
            attempt.retry_after_s, attempt.jitter = what.retry_after_s, what.jitter
        if isinstance(what, Completed | Cancelled) or not what.retryable:
            call.ended_at = now
            call.outcome = _outcome_of(what)

    def _completed(self, call: Call, attempt: Attempt | None, done: Completed) -> None:
        if done.output_tokens is not None:
            call.output_tokens = done.output_tokens
        if done.prompt_tokens is not None:
            call.prompt_tokens = done.prompt_tokens
        if attempt is not None:
            attempt.output_tokens = call.output_tokens
            attempt.prompt_tokens = call.prompt_tokens
            attempt.cached_tokens = done.cached_tokens


def _end_of(what: Completed | Throttled | Failed | Cancelled) -> str:
    if isinstance(what, Throttled):
        return str(what.cause)
    return type(what).__name__.lower()


def _outcome_of(what: Completed | Throttled | Failed | Cancelled) -> RequestOutcome:
    if isinstance(what, Completed):
        return RequestOutcome.COMPLETED
    return RequestOutcome.CANCELLED if isinstance(what, Cancelled) else RequestOutcome.FAILED
