"""The scheduler: events in, actions out. It is told the time and never asks for it."""

import math
from collections.abc import Callable

from penstock.core.admission import AdmissionControl
from penstock.core.backlog import Backlog
from penstock.core.bounds import EventCheck
from penstock.core.containment import Containment
from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Draining,
    DriverStalled,
    Event,
    Failed,
    FirstToken,
    LimitsSeen,
    PauseLifted,
    Pinned,
    Reconfigured,
    Throttled,
    Woke,
)
from penstock.core.lanes import Lanes
from penstock.core.outcomes import Outcomes
from penstock.core.pins import Pins
from penstock.core.policy import Allocator, OrderedQueue, OverloadPolicy
from penstock.core.reconfiguration import Reconfiguration, SchedulerParts
from penstock.core.settings import Settings
from penstock.core.snapshot import Snapshot, Waiting, snapshot_of
from penstock.core.tickets import Tickets
from penstock.core.upstream.ledger import Upstream
from penstock.errors import ProtocolError


class Scheduler:
    """Decides, request by request, what goes next, what waits and what is refused.

    Drivers call `handle` with what happened and carry out what it returns, in order; they call
    it with `Woke` when `next_wakeup` comes due. The same events at the same times give the same
    actions, whoever drives.

    A request arrives at `core.admission`, waits in its `core.lane`, is sent by `core.tickets`
    (which knows where each is), and `core.outcomes` hears how that went.

    Attributes:
        faults: what was raised inside, the last few; whoever reports them takes them out.

    """

    def __init__(
        self,
        settings: Settings,
        upstreams: tuple[Upstream, ...],
        *,
        overload: OverloadPolicy,
        make_allocator: Callable[[], Allocator],
        make_queue: Callable[[], OrderedQueue],
        build: Callable[[Settings], SchedulerParts] | None = None,
    ) -> None:
        """Wire the parts; `policies.registry.build_scheduler` does it from settings alone."""
        self.settings = settings
        classes = {c.name: c for c in settings.classes}
        self._all_upstreams = upstreams
        self._lanes = Lanes(settings, upstreams, make_allocator, make_queue)
        self._tickets = tickets = Tickets(
            self._lanes, {u.name: u for u in upstreams}, Backlog(classes, settings.queue_limit)
        )
        self.waiting = Waiting(tickets)
        self._containment = Containment(tickets)
        self.faults = self._containment.faults
        self._reconfiguration = Reconfiguration(settings, build, classes, tickets)
        self._admission = AdmissionControl(
            tickets, overload, classes, self._reconfiguration.inherited
        )
        self._outcomes = outcomes = Outcomes(tickets, settings.max_attempts)
        self._pins = Pins(tickets, classes)
        self._now = -math.inf
        self._gate = EventCheck()
        self._handlers: dict[type, Callable[..., None]] = {
            Arrived: self._admission.on_arrived,
            FirstToken: outcomes.on_first_token,
            Completed: outcomes.on_completed,
            Throttled: outcomes.on_throttled,
            Failed: outcomes.on_failed,
            Cancelled: outcomes.on_cancelled,
            Woke: self._on_woke,
            Draining: self._on_draining,
            DriverStalled: self._on_stalled,
            LimitsSeen: self._on_limits_seen,
            PauseLifted: self._on_pause_lifted,
            Pinned: self._on_pinned,
            Reconfigured: self._on_reconfigured,
        }

    def handle(self, event: Event, *, now: float) -> list[Action]:
        """Take in one event and return what must be done, in order.

        Whatever raises inside ends at most the one request that was being handled, with the
        reason "fault"; its slot is free, the others go on, and `faults` has the error.

        Raises:
            ProtocolError: time went backwards, an id arrived twice, a class is not configured,
                a number is impossible (`core.bounds`), or an event speaks of a request that does
                not fly. What timers had decided by then is returned by the next call, for which
                `next_wakeup` asks at once.

        """
        event = self._gate.checked(event, now, self._now)
        self._now = now
        self._tickets.at_work = None
        try:
            self._take_in(event, now)
        except ProtocolError:
            raise
        except Exception as fault:  # noqa: BLE001 - kept in `faults`, and counted
            self._containment.contain(event, fault, now)
        for upstream in self._all_upstreams:
            if upstream.capacity.window != upstream.window_told:
                self._tickets.actions.append(upstream.window_moved())
        actions, self._tickets.actions = self._tickets.actions, []
        return actions

    def _take_in(self, event: Event, now: float) -> None:
        tickets = self._tickets
        if self._pins.ends_at <= now:
            self._pins.end(now)
            self._tickets.pump_all(now)
        if tickets.deferred.earliest <= now or tickets.expiry.earliest <= now:
            # At one instant timers come last: those due exactly now wait for `Woke`.
            due = now if isinstance(event, Woke) else math.nextafter(now, -math.inf)
            self._admission.on_timers(due, now)
        self._handlers[type(event)](event, now)

    def next_wakeup(self) -> float | None:
        """Return when `Woke` is due, or None if nothing waits for time alone."""
        if self._tickets.actions:  # an event was refused after the timers had been heard
            return self._now
        at = self._pins.ends_at
        for timers in (self._tickets.deferred, self._tickets.expiry):
            if timers.earliest < at:
                at = min(at, timers.next_at())
        for lane in self._lanes.by_upstreams.values():
            if lane.wake_at < at:
                at = lane.wake_at
        if at == math.inf:
            return None
        return at if at > self._now else self._now

    def snapshot(self, now: float | None = None) -> Snapshot:
        """Return the scheduler's state, for people, as it is `now` or was at the last event."""
        return snapshot_of(
            self._now if now is None else max(self._now, now),
            self._tickets,
            self._gate.ignored,
            self._containment.seen,
            self._reconfiguration.generation,
            self._pins.shown(),
        )

    def _on_woke(self, _event: Woke, now: float) -> None:
        self._tickets.pump_all(now)

    def _on_draining(self, _event: Draining, now: float) -> None:
        self._admission.on_draining(now)
        self._tickets.pump_all(now)

    def _on_stalled(self, event: DriverStalled, now: float) -> None:
        for upstream in self._all_upstreams:
            upstream.driver_stalled(event.since, now)

    def _on_limits_seen(self, event: LimitsSeen, now: float) -> None:
        self._lanes.upstream(event.upstream).learn(event, now=now)
        self._tickets.pump_sharing(event.upstream, now)

    def _on_pause_lifted(self, event: PauseLifted, now: float) -> None:
        self._lanes.upstream(event.upstream).lift(event.account, now=now)
        self._tickets.pump_sharing(event.upstream, now)

    def _on_pinned(self, event: Pinned, now: float) -> None:
        self._pins.take(event, now)
        self._tickets.pump_all(now)

    def _on_reconfigured(self, event: Reconfigured, now: float) -> None:
        self._admission.overload = self._reconfiguration.apply(event.settings, now)
        self.settings = event.settings
        self._outcomes.max_attempts = event.settings.max_attempts
        self._all_upstreams = tuple(self._tickets.upstreams.values())
        self._pins.hold()
        self._tickets.pump_all(now)
