"""Drives the same scheduler as the runtime does, on a virtual clock against provider models.

One instant's order: completions, then arrivals, then timers; within each, the request's sequence
number (DESIGN.md).
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, Protocol

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Defer,
    Dispatch,
    Event,
    Failed,
    FirstToken,
    LimitsSeen,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.model import Request
from penstock.errors import ProtocolError
from penstock.metrics import RequestOutcome, RequestRecord
from penstock.sim.calls import unit
from penstock.sim.providers.base import Happening, Job, Provider, ProviderEvent, ProviderRefusal
from penstock.sim.workload import Load, Workload

_FIRST_TOKEN, _FINISHED = Happening.FIRST_TOKEN, Happening.FINISHED
_COMPLETED = RequestOutcome.COMPLETED
_JITTER_STREAM, _STREAMED_STREAM, _HEARD_STREAM = 0x4A49, 0x5352, 0x4845
_IDLE_WAKES_LIMIT = 10_000
_ENDS = (Completed, Failed, Cancelled, Throttled)
"""Of an attempt."""
_HOLDS_ITS_PLACE = (1e6, 1e6)
"""Luck with which no attempt ends by itself."""
_OUTCOMES = {Completed: RequestOutcome.COMPLETED, Cancelled: RequestOutcome.CANCELLED}
_CAUSES = {
    "rate": RefusalCause.RATE,
    "quota": RefusalCause.QUOTA,
    "overload": RefusalCause.OVERLOAD,
}


class Decider(Protocol):
    """What the engine needs of a scheduler."""

    def handle(self, event: Event, *, now: float) -> list[Action]:
        """Take one event in and answer with actions."""
        ...

    def next_wakeup(self) -> float | None:
        """Return when `Woke` is wanted, in driver seconds; None if never."""
        ...


Watch = Callable[[float, Event, list[Action]], None]
"""Shown every event with its time and what the scheduler answered."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How the simulated client reads replies and hears of refusals.

    Attributes:
        stream: the share of the calls whose tokens are read as they come, so that the scheduler
            hears of their first ones.
        patience_s: how long it waits for a reply that has stopped before it gives up.
        first_token_s: how long a streaming client waits for the first token before it breaks
            off and says so (`slow_first_token`); inf for ever.
        refusal_s: mean time until it hears that it was refused, drawn from the exponential
            distribution: refusals then come out of order, as over a network. 0: at once.

    """

    stream: float = 0.0
    patience_s: float = 60.0
    first_token_s: float = math.inf
    refusal_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rejection:
    """One refusal with what the scheduler gave as its grounds.

    Attributes:
        bucket: by the true length. rung: by the predicted one.

    """

    request_id: int
    at: float
    bucket: str
    reason: str
    rung: str
    cost_tokens: float
    severity: float


@dataclass(frozen=True, slots=True)
class Run:
    """What happened.

    Attributes:
        records: one for each request, by sequence number.
        refusals: in order of time.
        attempts: jobs handed to providers, refused ones included.

    """

    records: list[RequestRecord]
    refusals: list[Rejection]
    attempts: int


class Engine:
    """One run of one scheduler against one or several providers."""

    def __init__(
        self,
        scheduler: Decider,
        providers: Mapping[str, Provider],
        *,
        habits: Habits | None = None,
        seed: int = 0,
        watch: Watch | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._providers = dict(providers)
        self._each = tuple(self._providers.items())
        self._habits = habits or Habits()
        self._seed = seed
        self._watch = watch
        self._stating = {n for n, p in self._providers.items() if p.limits(now=0.0)}
        self._upstream_of: dict[int, str] = {}
        self._given_up_at: list[tuple[float, int]] = []
        self._unheard_of: list[tuple[float, int, Throttled | Failed]] = []
        self._slow_at: list[tuple[float, int, int]] = []
        self._unheard: dict[int, int] = {}
        self._hurried = self._habits.stream > 0 and self._habits.first_token_s < math.inf
        self._started: dict[int, bool] = {}
        self._pending: deque[Event] = deque()
        self._turned_away: dict[int, tuple[float, int, Throttled | Failed]] = {}
        self._refused: Counter[int] = Counter()
        self._real_ends: Counter[int] = Counter()
        self._leaving: list[tuple[float, int]] = []
        self._stale = True
        self._loads: tuple[Load, ...] = ()
        self._ended: dict[int, tuple[float, RequestOutcome]] = {}
        self._deferrals: dict[int, int] = {}
        self._refusals: list[Rejection] = []
        self._attempts = 0

    def run(self, workload: Workload, *, past: Iterable[tuple[float, Event]] = ()) -> Run:
        """Run until every request has ended.

        Args:
            workload: what arrives.
            past: what really happened at first, with its times: the scheduler is told just that,
                and the providers come in with what was flying at its end. An attempt that really
                ended in it ends then, and not before.

        Raises:
            ProtocolError: requests are left that nothing will ever end, or the scheduler asks to
                be woken again and again at one instant: both are bugs of a policy.

        """
        self._loads = workload.loads
        arrivals = islice(workload.loads, self._relive(past), None)
        self._leaving = sorted(
            (load.leaves_at, load.request.id)
            for load in workload.loads
            if load.leaves_at < math.inf and load.request.id not in self._ended
        )
        coming = next(arrivals, None)
        wakes, wakes_at = 0, math.inf
        while True:
            happens_at = self._next_happening()
            arrives_at = math.inf if coming is None else coming.request.arrived_at
            if self._stale:
                # Asked once after each event and not at each turn: it is not free.
                self._stale = False
                wakeup = self._scheduler.next_wakeup()
                wakes_at = math.inf if wakeup is None else wakeup
            if happens_at <= arrives_at and happens_at <= wakes_at:
                if happens_at == math.inf:
                    break
                wakes = 0
                self._happen(happens_at)
            elif coming is not None and arrives_at <= wakes_at:
                wakes = 0
                self._deliver(Arrived(coming.request), arrives_at)
                coming = next(arrivals, None)
            else:
                wakes += 1
                if wakes > _IDLE_WAKES_LIMIT:
                    raise ProtocolError(f"woken {wakes} times at {wakes_at} s to no effect")
                self._deliver(Woke(), wakes_at)
        return self._finished()

    def _relive(self, past: Iterable[tuple[float, Event]]) -> int:
        """Let the past happen and return how many requests arrived in it.

        What a provider makes of it meanwhile is not told; what it has ended by itself although it
        was not over is over when the past is. What was over holds its place until it really ended:
        a place that is free a little too early would have the whole queue come in too early.
        """
        past = list(past)
        arrived, now = 0, 0.0
        self._real_ends.update(e.request_id for _, e in past if isinstance(e, _ENDS))
        early: dict[int, tuple[str, ProviderEvent]] = {}
        for now, event in past:
            for name, provider in self._each:
                for happened in provider.advance(now=now):
                    if happened.what is not _FIRST_TOKEN:
                        early[happened.job_id] = (name, happened)
            if isinstance(event, Arrived):
                arrived += 1
            elif isinstance(event, _ENDS):
                self._refused[event.request_id] += isinstance(event, Throttled)
                self._real_ends[event.request_id] -= 1
                self._really_ended(event, now)
                early.pop(event.request_id, None)
                self._turned_away.pop(event.request_id, None)
            elif isinstance(event, FirstToken):
                self._started[event.request_id] = True
            self._deliver(event, now, replying=False)
        for name, happened in early.values():
            self._report(name, happened, now)
        for heard_at, attempt, refusal in self._turned_away.values():
            heappush(self._unheard_of, (max(now, heard_at), attempt, refusal))
        return arrived

    def _really_ended(self, event: Completed | Failed | Cancelled | Throttled, now: float) -> None:
        id_ = event.request_id
        upstream = self._upstream_of.get(id_)
        if upstream is not None:
            self._providers[upstream].cancel(id_, now=now)
        self._started.pop(id_, None)
        self._ended[id_] = (now, _OUTCOMES.get(type(event), RequestOutcome.FAILED))

    def _next_happening(self) -> float:
        """Return when providers or clients next do something by themselves; inf if never."""
        soonest = self._given_up_at[0][0] if self._given_up_at else math.inf
        if self._slow_at and self._slow_at[0][0] < soonest:
            soonest = self._slow_at[0][0]
        if self._unheard_of and self._unheard_of[0][0] < soonest:
            soonest = self._unheard_of[0][0]
        if self._leaving and self._leaving[0][0] < soonest:
            soonest = self._leaving[0][0]
        for _, provider in self._each:
            at = provider.next_event_at()
            if at < soonest:
                soonest = at
        return soonest

    def _happen(self, now: float) -> None:
        for name, provider in self._each:
            for event in provider.advance(now=now):
                self._report(name, event, now)
        while self._unheard_of and self._unheard_of[0][0] <= now:
            self._deliver(heappop(self._unheard_of)[2], now)
        if self._given_up_at or self._slow_at:
            self._lose_patience(now)
        while self._leaving and self._leaving[0][0] <= now:
            self._leave(heappop(self._leaving)[1], now)

    def _lose_patience(self, now: float) -> None:
        """Give up replies that have stopped, and those that have not begun in time."""
        while self._given_up_at and self._given_up_at[0][0] <= now:
            _, request_id = heappop(self._given_up_at)
            if self._ended.get(request_id, (now, None))[1] is RequestOutcome.CANCELLED:
                continue
            self._providers[self._upstream_of[request_id]].cancel(request_id, now=now)
            self._break(request_id, now)
        while self._slow_at and self._slow_at[0][0] <= now:
            _, request_id, attempt = heappop(self._slow_at)
            if self._unheard.get(request_id) == attempt:
                self._break_off(request_id, now)

    def _leave(self, request_id: int, now: float) -> None:
        """Let a caller go away that has no reply yet; one that failed may wait to be sent again."""
        _, outcome = self._ended.get(request_id, (now, RequestOutcome.FAILED))
        if outcome is not RequestOutcome.FAILED:
            return
        upstream = self._upstream_of.get(request_id)
        if upstream is not None:
            self._providers[upstream].cancel(request_id, now=now)
        self._unheard.pop(request_id, None)
        if self._unheard_of:
            self._unheard_of = [u for u in self._unheard_of if u[2].request_id != request_id]
            heapify(self._unheard_of)
        self._ended[request_id] = (now, RequestOutcome.CANCELLED)
        self._deliver(Cancelled(request_id), now)

    def _break_off(self, request_id: int, now: float) -> None:
        """End an attempt whose first token did not come in time."""
        self._unheard.pop(request_id)
        self._providers[self._upstream_of[request_id]].cancel(request_id, now=now)
        jitter = unit(self._seed, _JITTER_STREAM, self._attempts)
        self._deliver(Throttled(request_id, RefusalCause.SLOW_FIRST_TOKEN, None, jitter), now)

    def _report(self, name: str, event: ProviderEvent, now: float) -> None:
        """Tell the scheduler what its provider did, as a client would notice it."""
        request_id = event.job_id
        if self._hurried:
            self._unheard.pop(request_id, None)
        what = event.what
        if what is _FIRST_TOKEN:
            if self._is_streamed(request_id):
                self._started[request_id] = True
                self._deliver(FirstToken(request_id), now)
        elif what is _FINISHED:
            load = self._loads[request_id - 1]
            self._ended[request_id] = (now, _COMPLETED)
            done = Completed(
                request_id,
                load.output_tokens,
                load.request.prompt_tokens,
                cached_tokens=event.cached_tokens,
            )
            if name in self._stating:
                self._deliver(self._limits_event(load.request, name, now), now)
            self._deliver(done, now)
        elif what is Happening.STALLED:
            heappush(self._given_up_at, (now + self._habits.patience_s, request_id))
        elif event.status in (429, 503, 529):
            kind = "rate" if event.status == 429 else "overload"
            refusal = ProviderRefusal(event.status, kind=kind)
            self._deliver(self._refusal(request_id, refusal, now)[1], now)
            self._refused[request_id] += 1
        else:
            self._break(request_id, now)

    def _break(self, request_id: int, now: float) -> None:
        """Tell of a broken attempt; what has begun to stream cannot be tried again."""
        retryable = not self._started.pop(request_id, False)
        self._ended[request_id] = (now, RequestOutcome.FAILED)
        jitter = unit(self._seed, _JITTER_STREAM, self._attempts)
        self._deliver(Failed(request_id, retryable=retryable, jitter=jitter), now)

    def _deliver(self, event: Event, now: float, *, replying: bool = True) -> None:
        """Hand the scheduler an event; carry out its answers and what these bring about at once.

        Args:
            event: what happened.
            now: when.
            replying: False if what it brings about is not to be told: the past says what it was.

        """
        self._stale = True
        pending = self._pending
        while True:
            actions = self._scheduler.handle(event, now=now)
            if self._watch is not None:
                self._watch(now, event, actions)
            for action in actions:
                if isinstance(action, Dispatch):
                    self._dispatch(action, now, replying=replying)
                elif isinstance(action, Reject):
                    self._refuse(action, now)
                elif isinstance(action, Defer):
                    self._defer(action)
            if not pending:
                return
            event = pending.popleft()

    def _dispatch(self, action: Dispatch, now: float, *, replying: bool) -> None:
        request, upstream = action.request, action.upstream
        id_ = request.id
        self._attempts += 1
        self._ended.pop(id_, None)
        self._upstream_of[id_] = upstream
        load = self._loads[id_ - 1]
        luck = _HOLDS_ITS_PLACE if self._real_ends and self._real_ends[id_] else load.luck
        job = Job(id_, load.output_tokens, request.prompt_tokens, luck, load.cached_tokens)
        refusal = self._providers[upstream].submit(job, now=now)
        if refusal is not None and replying:
            self._queue_limits(request, upstream, now)
            self._hear(id_, refusal, now)
        elif refusal is not None:  # it was none in reality: kept until the past is over
            late_s, event = self._refusal(id_, refusal, now)
            self._turned_away[id_] = (now + late_s, self._attempts, event)
        elif self._hurried and self._is_streamed(id_):
            self._unheard[id_] = self._attempts
            heappush(self._slow_at, (now + self._habits.first_token_s, id_, self._attempts))

    def _hear(self, request_id: int, refusal: ProviderRefusal, now: float) -> None:
        """Have the scheduler hear of a refusal at once, or as late as the network has it."""
        late_s, event = self._refusal(request_id, refusal, now)
        self._refused[request_id] += 1
        if late_s == 0.0:
            self._pending.append(event)
        else:
            heappush(self._unheard_of, (now + late_s, self._attempts, event))

    def _is_streamed(self, request_id: int) -> bool:
        known = self._loads[request_id - 1].streamed
        if known is not None:
            return known
        share = self._habits.stream
        return share > 0 and (share >= 1 or unit(self._seed, _STREAMED_STREAM, request_id) < share)

    def _refusal(
        self, request_id: int, refusal: ProviderRefusal, now: float
    ) -> tuple[float, Throttled | Failed]:
        """Return how long until a refusal is heard of, and what is heard then."""
        nth, known = self._refused[request_id], self._loads[request_id - 1].refusals
        if nth < len(known):
            late_s, jitter = known[nth]
        else:
            jitter = unit(self._seed, _JITTER_STREAM, self._attempts)
            late_s = -math.log(unit(self._seed, _HEARD_STREAM, self._attempts))
            late_s *= self._habits.refusal_s
        cause = _CAUSES.get(refusal.kind)
        if cause is not None:
            return late_s, Throttled(request_id, cause, refusal.retry_after_s, jitter)
        self._ended[request_id] = (now, RequestOutcome.FAILED)
        theirs = refusal.status >= 500
        failed = Failed(request_id, retryable=theirs, upstream_fault=theirs, jitter=jitter)
        return late_s, failed

    def _refuse(self, action: Reject, now: float) -> None:
        request, why = action.request, action.why
        bucket = self._loads[request.id - 1].bucket
        # "upstream" relays the last attempt's answer: the provider failed, nobody was shed.
        outcome = RequestOutcome.FAILED if action.reason == "upstream" else RequestOutcome.SHED
        self._ended[request.id] = (now, outcome)
        self._refusals.append(
            Rejection(
                request.id,
                now,
                bucket,
                action.reason,
                why.rung,
                request.cost_tokens,
                why.severity,
            )
        )

    def _defer(self, action: Defer) -> None:
        request_id = action.request.id
        self._deferrals[request_id] = self._deferrals.get(request_id, 0) + 1

    def _queue_limits(self, request: Request, name: str, now: float) -> None:
        if name in self._stating:
            self._pending.append(self._limits_event(request, name, now))

    def _limits_event(self, request: Request, name: str, now: float) -> LimitsSeen:
        stated: dict[str, Any] = {}
        for what, limit in self._providers[name].limits(now=now).items():
            if what != "requests_per_day":
                stated[f"limit_{what}"] = limit.limit
                stated[f"remaining_{what}"] = limit.remaining
                stated[f"reset_{what}_s"] = limit.reset_s
        return LimitsSeen(name, **stated, model=request.model, account=request.account)

    def _finished(self) -> Run:
        records: list[RequestRecord] = []
        for load in self._loads:
            request = load.request
            if request.id not in self._ended:
                raise ProtocolError(
                    f"request {request.id} never ended although nothing more can happen: "
                    "a policy holds it back for ever"
                )
            ended_at, outcome = self._ended[request.id]
            records.append(
                RequestRecord(
                    load.bucket,
                    request.arrived_at,
                    load.deadline,
                    ended_at,
                    outcome,
                    self._deferrals.get(request.id, 0),
                )
            )
        return Run(records, self._refusals, self._attempts)
