"""The scheduler: events in, actions out. It is told the time and never asks for it."""

import math
from collections.abc import Callable, Sequence

from penstock.core import retry
from penstock.core.backlog import Backlog
from penstock.core.backoff import REQUEST_BASE_S, REQUEST_CAP_S, backoff_s
from penstock.core.bounds import Gate, require_time
from penstock.core.containment import Containment
from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Defer,
    Dispatch,
    Draining,
    DriverStalled,
    Event,
    Failed,
    FirstToken,
    LimitsSeen,
    PauseLifted,
    Reconfigured,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.lane import Lane
from penstock.core.lanes import Lanes
from penstock.core.policy import Admit, Allocator, DeferFor, OrderedQueue, OverloadPolicy
from penstock.core.reconfiguration import Parts, Reconfiguration
from penstock.core.settings import Settings
from penstock.core.snapshot import Snapshot, snapshot_of
from penstock.core.ticket import Stage, Ticket, ticket_of
from penstock.core.timers import Timers
from penstock.core.upstream.ledger import Upstream
from penstock.core.waiting import Waiting
from penstock.core.why import why_of
from penstock.errors import ProtocolError

DRAIN_RETRY_S = 5.0
# A module's name is found faster than a member of an Enum, here twice for each event.
_QUEUED, _IN_FLIGHT, _ENDED = Stage.QUEUED, Stage.IN_FLIGHT, Stage.ENDED


class Scheduler:
    """Decides, request by request, what goes next, what waits and what is refused.

    Drivers call `handle` with what happened and carry out what it returns, in order; they call
    it with `Woke` when `next_wakeup` comes due. The same events at the same times give the same
    actions, whoever drives.
    """

    def __init__(
        self,
        settings: Settings,
        upstreams: tuple[Upstream, ...],
        *,
        overload: OverloadPolicy,
        make_allocator: Callable[[], Allocator],
        make_queue: Callable[[], OrderedQueue],
        build: Callable[[Settings], Parts] | None = None,
    ) -> None:
        """Wire the parts; `policies.registry.build_scheduler` does it from settings alone."""
        self.settings = settings
        self._upstreams = {u.name: u for u in upstreams}
        self._all_upstreams = upstreams
        self._overload = overload
        self._classes = {c.name: c for c in settings.classes}
        self._lanes = Lanes(settings, upstreams, make_allocator, make_queue)
        self._tickets: dict[int, Ticket] = {}
        self._deferred = Timers()
        self._expiry = Timers()
        self.waiting = Waiting(self._tickets, self._lanes, self._deferred)
        self._backlog = Backlog(self._classes, settings.queue_limit)
        self._now = -math.inf
        self._draining = False
        self._actions: list[Action] = []
        self._gate = Gate()
        self._at_work: Ticket | None = None
        self._containment = Containment(
            self._tickets, self._lanes, self._upstreams, self._backlog, self._deferred, self._expiry
        )
        self._reconfiguration = Reconfiguration(settings, build, self._classes, self._containment)
        self._handlers: dict[type, Callable[..., None]] = {
            Arrived: self._on_arrived,
            FirstToken: self._on_first_token,
            Completed: self._on_completed,
            Throttled: self._on_throttled,
            Failed: self._on_failed,
            Cancelled: self._on_cancelled,
            Woke: self._on_woke,
            Draining: self._on_draining,
            DriverStalled: self._on_stalled,
            LimitsSeen: self._on_limits_seen,
            PauseLifted: self._on_pause_lifted,
            Reconfigured: self._on_reconfigured,
        }

    def handle(self, event: Event, *, now: float) -> list[Action]:
        """Take in one event and return what must be done, in order.

        Whatever raises inside ends at most the one request that was being handled, with the
        reason "fault"; its slot is free, the others go on, and `take_faults` returns the errors.

        Raises:
            ProtocolError: time went backwards, an id arrived twice, a class is not configured,
                a number is impossible (`core.bounds`), or an event speaks of a request that does
                not fly. What timers had decided by then is returned by the next call, for which
                `next_wakeup` asks at once.

        """
        require_time(now, self._now)
        event = self._gate.checked(event, now)
        self._now = now
        self._at_work = None
        try:
            self._take_in(event, now)
        except ProtocolError:
            raise
        except Exception as fault:  # noqa: BLE001 - kept for `take_faults`, and counted
            self._containment.contain(
                event, fault, lambda: self._at_work, self._pump, self._actions, now
            )
        for upstream in self._all_upstreams:
            if upstream.capacity.window != upstream.window_told:
                self._actions.append(upstream.window_moved())
        actions, self._actions = self._actions, []
        return actions

    def _take_in(self, event: Event, now: float) -> None:
        if self._deferred.earliest <= now or self._expiry.earliest <= now:
            # At one instant timers come last: those due exactly now wait for `Woke`.
            self._timers(now if isinstance(event, Woke) else math.nextafter(now, -math.inf), now)
        self._handlers[type(event)](event, now)

    def next_wakeup(self) -> float | None:
        """Return when `Woke` is due, or None if nothing waits for time alone."""
        if self._actions:  # an event was refused after the timers had been heard
            return self._now
        at = math.inf
        if self._deferred.earliest < at:
            at = self._deferred.next_at()
        if self._expiry.earliest < at:
            at = min(at, self._expiry.next_at())
        for lane in self._lanes:
            if lane.wake_at < at:
                at = lane.wake_at
        if at == math.inf:
            return None
        return at if at > self._now else self._now

    def take_faults(self) -> Sequence[Exception]:
        """Return what was raised inside since this was last asked, the last few at most."""
        return self._containment.take()

    def snapshot(self, now: float | None = None) -> Snapshot:
        """Return the scheduler's state, for people, as it is `now` or was at the last event."""
        counts = len(self._deferred), self._gate.ignored, self._containment.seen
        lanes, at = self._lanes.by_upstreams, self._now if now is None else max(self._now, now)
        return snapshot_of(
            at, self._draining, lanes, self._upstreams, *counts, self._reconfiguration.generation
        )

    # Events

    def _on_arrived(self, event: Arrived, now: float) -> None:
        request = event.request
        if request.id in self._tickets:
            raise ProtocolError(f"request {request.id} arrived twice: ids must be unique")
        known = self._classes.get(request.traffic_class)
        if known is None:
            self._on_arrived(Arrived(self._reconfiguration.inherited(request)), now)
            return
        lane = self._lanes.find(request)
        if lane is None:
            self._reject(ticket_of(request, 0.0, 0.0), None, "no_upstream", None, now)
            return
        lane.retries.arrived(now)
        estimate = request.estimate
        p50_s, p90_s = lane.service_s(request.model, estimate.p50_tokens, estimate.p90_tokens)
        ticket = self._at_work = ticket_of(request, p50_s, p90_s)
        if known.hopeless == "refuse":
            ticket.hopeless_at = request.deadline - p50_s
        signals = lane.signals
        signals.arrived(ticket, now)
        if self._draining:
            self._reject(ticket, lane, "draining", DRAIN_RETRY_S, now)
            return
        if request.expires_at <= now:
            self._reject(ticket, lane, "expired", None, now)
            return
        if ticket.hopeless_at < now:
            self._reject(ticket, lane, "hopeless", None, now)
            return
        if lane.is_too_large(ticket):
            self._reject(ticket, lane, "too_large", None, now)
            return
        if no_use := lane.no_use(request, now):
            self._reject(ticket, lane, no_use, lane.open_at(request.account, now) - now, now)
            return
        if self._backlog.is_full_for(ticket):
            self._reject(ticket, lane, "queue_full", lane.retry_after_s(request.account, now), now)
            return
        self._tickets[request.id] = ticket
        self._hold_back(ticket)
        signals.refresh(now)
        self._judge(ticket, lane, now)
        self._lanes.nesting.arrived(ticket, self._tickets)
        nested = request.inside is not None
        if nested or (not lane.closed and request.traffic_class not in lane.barred):
            self._pump(lane, now)

    def _on_first_token(self, event: FirstToken, now: float) -> None:
        ticket = self._flying(event.request_id, "FirstToken")
        upstream = self._upstreams[ticket.upstream]
        troubled = upstream.account(ticket.request.account).breaker.troubled
        upstream.first_token(ticket, now=now)
        if troubled:
            self._pump_sharing(ticket.upstream, now)

    def _on_completed(self, event: Completed, now: float) -> None:
        ticket = self._flying(event.request_id, "Completed")
        lane = self._landed(ticket)
        signals = lane.signals
        ratio = self._upstreams[ticket.upstream].complete(
            ticket, event, waiting=signals.waiting > 0, now=now
        )
        if event.output_tokens is not None:
            lane.settle(ticket, event.output_tokens - ticket.cost_tokens)
        if ratio == ratio:  # not nan
            signals.replied(ticket, ratio, now)
        self._end(ticket)
        for each in self._lanes.of_upstream[ticket.upstream]:
            self._pump(each, now)

    def _on_throttled(self, event: Throttled, now: float) -> None:
        ticket = self._flying(event.request_id, "Throttled")
        lane = self._landed(ticket)
        upstream = self._upstreams[ticket.upstream]
        sharing = self._lanes.of_upstream[upstream.name]
        account = ticket.request.account
        before = [each.closings(account, now) for each in sharing]
        upstream.refuse(ticket, event, now=now)
        lane.settle(ticket, -ticket.cost_tokens)
        retry_at = lane.retry_at(ticket, now)
        hopeless = (
            retry_at >= retry.last_at(ticket)
            or lane.no_use(ticket.request, now)
            or retry.refused_too_often(ticket, self.settings.max_attempts, now)
        )
        if not event.retryable:
            self._end(ticket)
        elif hopeless or self._draining:
            self._end(ticket)
            again_s = retry_at - now if retry_at < math.inf else None
            self._reject(ticket, lane, "upstream", again_s, now)
        else:
            self._hold_back(ticket)
            lane.push(ticket, now)
        for each, closings in zip(sharing, before, strict=True):
            if each.closings(account, now) > closings:
                self._fail_fast(each, account, now)
        self._pump_sharing(upstream.name, now)

    def _on_failed(self, event: Failed, now: float) -> None:
        ticket = self._flying(event.request_id, "Failed")
        lane = self._landed(ticket)
        self._upstreams[ticket.upstream].fail(
            ticket, upstream_fault=event.upstream_fault, jitter=event.jitter, now=now
        )
        lane.settle(ticket, -ticket.cost_tokens)
        until = now + backoff_s(
            ticket.attempts, event.jitter, base_s=REQUEST_BASE_S, cap_s=REQUEST_CAP_S
        )
        elsewhere = event.upstream_fault and retry.may_go_elsewhere(ticket, lane, event, now)
        if elsewhere and not event.reached:
            until = now
        again = (
            event.retryable
            and not self._draining
            and ticket.attempts < self.settings.max_attempts
            and until < retry.last_at(ticket)
            and not lane.no_use(ticket.request, now)
        )
        if again and (elsewhere or retry.pay(ticket, lane, now)):
            if elsewhere and event.reached:
                lane.retries.go_elsewhere(now=now)
            self._hold_back(ticket)
            if until > now:
                self._defer(ticket, "backoff", until)
            else:
                lane.push(ticket, now)
        else:
            self._end(ticket)
            if event.retryable:
                open_at = lane.open_at(ticket.request.account, now)
                self._reject(ticket, lane, "upstream", open_at - now, now)
        self._pump_sharing(ticket.upstream, now)

    def _on_cancelled(self, event: Cancelled, now: float) -> None:
        ticket = self._tickets.get(event.request_id)
        if ticket is None:  # it had ended: the caller could not know
            return
        self._at_work = ticket
        lane = self._lanes.of(ticket.request)
        if ticket.stage is _IN_FLIGHT:
            self._landed(ticket)
            self._upstreams[ticket.upstream].left(ticket, now=now)
        elif ticket.stage is _QUEUED:
            lane.take(ticket, now)
        self._end(ticket)
        if ticket.upstream:
            self._pump_sharing(ticket.upstream, now)
        self._pump(lane, now)

    def _on_woke(self, _event: Woke, now: float) -> None:
        for lane in self._lanes:
            self._pump(lane, now)

    def _on_draining(self, _event: Draining, now: float) -> None:
        self._draining = True
        for ticket in [t for t in self._tickets.values() if t.stage is not _IN_FLIGHT]:
            self._refuse_waiting(ticket, "draining", DRAIN_RETRY_S, now)
        for lane in self._lanes:
            self._pump(lane, now)

    def _on_stalled(self, event: DriverStalled, now: float) -> None:
        for upstream in self._all_upstreams:
            upstream.driver_stalled(event.since, now)

    def _on_limits_seen(self, event: LimitsSeen, now: float) -> None:
        self._lanes.upstream(event.upstream).learn(event, now=now)
        self._pump_sharing(event.upstream, now)

    def _on_pause_lifted(self, event: PauseLifted, now: float) -> None:
        self._lanes.upstream(event.upstream).lift(event.account, now=now)
        self._pump_sharing(event.upstream, now)

    def _on_reconfigured(self, event: Reconfigured, now: float) -> None:
        self._overload = self._reconfiguration.apply(event.settings, now)
        self.settings = event.settings
        self._all_upstreams = tuple(self._upstreams.values())
        for lane in self._lanes:
            self._pump(lane, now)

    # Steps

    def _timers(self, due: float, now: float) -> None:
        """Hear the timers that were due by `due`; without any, change nothing.

        `earliest` may be that of a cancelled timer, and going on because of it would make
        decisions depend on how often `next_wakeup` was asked.
        """
        expired, returning = self._expiry.pop_due(now=due), self._deferred.pop_due(now=due)
        if not expired and not returning:
            return
        for id_ in expired:
            late = self._tickets[id_]
            if late.request.expires_at <= now:
                self._refuse_waiting(late, "expired", None, now)
            elif late.hopeless_at <= now:
                self._refuse_waiting(late, "hopeless", None, now)
            else:  # too late for another attempt: the last answer stands
                open_at = self._lanes.of(late.request).open_at(late.request.account, now)
                self._refuse_waiting(late, "upstream", open_at - now, now)
        for id_ in returning:
            ticket = self._tickets.get(id_)
            if ticket is None:  # expired at the same time
                continue
            self._at_work = ticket
            lane = self._lanes.of(ticket.request)
            lane.signals.refresh(now)
            if ticket.held_by == "backoff":
                lane.push(ticket, now)
            else:
                self._judge(ticket, lane, now)
        for lane in self._lanes:
            self._pump(lane, now)

    def _judge(self, ticket: Ticket, lane: Lane, now: float) -> None:
        verdict = self._overload.judge(ticket, lane.signals, now=now)
        if isinstance(verdict, Admit):
            lane.push(ticket, now)
        elif isinstance(verdict, DeferFor):
            why = why_of(ticket, lane, now)
            ticket.deferrals += 1
            until = now + verdict.delay_s
            self._defer(ticket, "deferral", until)
            self._actions.append(Defer(ticket.request, until, verdict.reason, why))
        else:
            self._end(ticket)
            self._reject(ticket, lane, verdict.reason, verdict.retry_after_s, now)

    def _defer(self, ticket: Ticket, cause: str, until: float) -> None:
        ticket.stage = Stage.DEFERRED
        ticket.hold(cause, now=self._now)
        self._deferred.set(ticket.request.id, until)

    def _pump(self, lane: Lane, now: float) -> None:
        signals = lane.signals
        self._at_work = None
        while (chosen := lane.next(now) or self._lanes.nesting.next(lane, now)) is not None:
            ticket, upstream = chosen
            self._at_work = ticket
            request = ticket.request
            lane.take(ticket, now)
            self._backlog.leave(ticket)
            ticket.hold("", now)
            lane.charge(ticket)
            why = why_of(ticket, lane, now)
            if ticket.attempts:
                breaker = upstream.account(request.account).breaker
                if breaker.troubled and not ticket.retry_paid:
                    lane.retries.spend(now=now)
                ticket.retry_paid = False
                self._expiry.cancel(request.id)
            upstream.depart(ticket, now)
            signals.departed(ticket)
            ticket.stage = _IN_FLIGHT
            if request.expires_at < math.inf or ticket.hopeless_at < math.inf:
                self._expiry.cancel(request.id)
            if lane.sticky is not None:
                lane.sticky.served(ticket)
            self._actions.append(Dispatch(request, upstream.name, why))
            self._at_work = None
        if not signals.waiting and not signals.in_flight:
            lane.rest()

    def _pump_sharing(self, upstream: str, now: float) -> None:
        for lane in self._lanes.of_upstream[upstream]:
            self._pump(lane, now)

    def _hold_back(self, ticket: Ticket) -> None:
        self._backlog.enter(ticket)
        until = retry.given_up_at(ticket)
        if until < math.inf:
            self._expiry.set(ticket.request.id, until)

    def _fail_fast(self, lane: Lane, account: str, now: float) -> None:
        """Refuse what waits for upstreams that are closed beyond its own patience."""
        open_at = lane.open_at(account, now)
        for ticket in list(self._tickets.values()):
            if ticket.request.account != account or ticket.stage is _IN_FLIGHT:
                continue
            if self._lanes.of(ticket.request) is not lane:
                continue
            if no_use := lane.no_use(ticket.request, now):
                self._refuse_waiting(ticket, no_use, open_at - now, now)

    def _refuse_waiting(
        self, ticket: Ticket, reason: str, retry_after_s: float | None, now: float
    ) -> None:
        lane = self._lanes.of(ticket.request)
        if ticket.stage is _QUEUED:
            lane.take(ticket, now)
        self._end(ticket)
        self._reject(ticket, lane, reason, retry_after_s, now)

    def _reject(
        self,
        ticket: Ticket,
        lane: Lane | None,
        reason: str,
        retry_after_s: float | None,
        now: float,
    ) -> None:
        ticket.hold("", now)
        why = why_of(ticket, lane, now)
        self._actions.append(Reject(ticket.request, reason, retry_after_s, why))

    # Facts

    def _flying(self, request_id: int, what: str) -> Ticket:
        ticket = self._tickets.get(request_id)
        if ticket is None or ticket.stage is not _IN_FLIGHT:
            state = "unknown" if ticket is None else ticket.stage.value
            raise ProtocolError(
                f"{what} of request {request_id}, which is {state}: only what flies can be "
                "answered; was an outcome reported twice?"
            )
        self._at_work = ticket
        return ticket

    def _landed(self, ticket: Ticket) -> Lane:
        lane = self._lanes.of(ticket.request)
        lane.signals.landed(ticket)
        return lane

    def _end(self, ticket: Ticket) -> None:
        id_ = ticket.request.id
        if ticket.stage is not _IN_FLIGHT:  # what flies has left all this
            self._backlog.leave(ticket)
            self._expiry.cancel(id_)
            self._deferred.cancel(id_)
        ticket.stage = _ENDED
        self._lanes.nesting.ended(ticket)
        del self._tickets[id_]
