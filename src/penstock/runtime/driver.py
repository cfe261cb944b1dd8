"""Drives the pure scheduler: tells it what happened and when, and carries out its answers.

Loops and threads may tell one driver at the same time, and it never blocks any of them: events
go into an inbox, and whoever holds the turn works it empty. (A lock would deadlock when a
finaliser runs in the middle of a decision; confinement to one loop would cost every sync caller
two thread switches, about 0.1 ms.)
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from penstock.core.events import (
    Abandoned,
    Action,
    Arrived,
    Cancelled,
    Completed,
    Decision,
    Defer,
    Dispatch,
    DriverStalled,
    Event,
    Failed,
    Reject,
    Throttled,
    WindowMoved,
    Woke,
)
from penstock.core.model import Latest, Request
from penstock.core.snapshot import Outlook, QueuePosition, WaitingGroup
from penstock.core.upstream.account import ACCOUNTS_LIMIT
from penstock.errors import ProtocolError
from penstock.runtime.clock import Clock, Pulse, Timer
from penstock.runtime.guarded import Guard
from penstock.runtime.uninterrupted import UNINTERRUPTED
from penstock.runtime.unread import UNREAD_S, UnreadReplies
from penstock.runtime.waiters import Waiter

logger = logging.getLogger("penstock.runtime")
# Tuples made once: `A | B` inside a call makes a new union each time (0.3 us).
_ATTEMPTS = (Throttled, Failed)
_LANDINGS = (Completed, Cancelled, *_ATTEMPTS)
FAULT_RETRY_S = 1.0
STALL_TOLD_S = 1.0
"""A stall that long is told in the log, once: a program can do something about it."""
_NO_SLOT = (Reject, Defer)
_TOLD_ONLY = (WindowMoved, Abandoned)


class Core(Protocol):
    """What a driver needs of the scheduler.

    Attributes:
        faults: what was raised inside and contained; the driver takes it out and logs it.

    """

    faults: deque[Exception]

    def handle(self, event: Event, *, now: float) -> list[Action]:
        """Take one event in and answer with actions."""
        ...

    def next_wakeup(self) -> float | None:
        """Return when `Woke` is wanted, in driver seconds; None if never."""
        ...

    def snapshot(self, now: float | None = None) -> Any:
        """Return the state for people and dashboards, as it is `now` or was at the last event."""
        ...

    @property
    def waiting(self) -> Any:
        """What reads who waits and for what, for people and dashboards."""
        ...


class Observer(Protocol):
    """Sees every event and every action, in order, with the scheduler's time."""

    def event(self, now: float, event: Event) -> None:
        """Take note of an event that the scheduler has taken; what it refuses has not happened."""
        ...

    def action(self, now: float, action: Action) -> None:
        """Take note of an action, before it is carried out."""
        ...


class _Tick:
    """The timer fired; whether it is a `Woke` is decided by whoever holds the turn."""

    __slots__ = ("due",)

    def __init__(self, due: float) -> None:
        self.due = due


class Driver:
    """One scheduler, one clock, one timer.

    Args:
        core: the scheduler; nobody else may call its `handle`.
        clock: where time comes from; the running event loop if None (bound at first use).
        observers: shown every event and action; their errors are logged and go no further.
        unread_s: for how long nobody may read from a streamed reply that holds a slot.
        guard: counts and logs the faults of what reads along; one of its own if None.

    """

    def __init__(
        self,
        core: Core,
        *,
        clock: Clock | None = None,
        observers: Iterable[Observer] = (),
        unread_s: float = UNREAD_S,
        guard: Guard | None = None,
    ) -> None:
        """Wire it up; nothing runs until the first event."""
        self._clock = clock
        self._unread_s = unread_s
        self.guard = guard or Guard()
        self.last_words: Latest[str] = Latest(ACCOUNTS_LIMIT)
        """What each account was last refused with, for those refused on its account later."""
        self.epoch = 0
        """How often it was renewed; slots of an earlier epoch are another process's."""
        self._begin(core, observers)

    def renew(self, core: Core, observers: Iterable[Observer]) -> None:
        """Start afresh in a forked child: what the parent has in hand is the parent's.

        Locks too: another thread of the parent may have held one at the time.
        """
        self.epoch += 1
        self._begin(core, observers)

    def _begin(self, core: Core, observers: Iterable[Observer]) -> None:
        self._core = core
        self.observers: list[Observer] = list(observers)
        self._waiters: dict[int, Waiter] = {}
        self._holding: set[int] = set()
        self.unread = UnreadReplies(self.now, self._unread_s)
        self.faults = 0
        """Errors of the core that reached nobody but the log."""
        self._inbox: deque[Event | _Tick] = deque()
        self._turn = threading.Lock()
        self._worker = 0
        self._last_now = float("-inf")
        self._timer: Timer | None = None
        self._timer_due = float("inf")
        self._closed = False
        self._here = threading.local()
        self._clock_pulse: Pulse | None = None
        self._told_stall = False

    @property
    def clock(self) -> Clock:
        """The clock in use.

        Raises:
            RuntimeError: none was given and no event loop is running.

        """
        if self._clock is None:
            self._clock = asyncio.get_running_loop()
        return self._clock

    @property
    def in_hand(self) -> int:
        """How many requests are waiting or hold a slot."""
        return len(self._waiters)

    def idle(self) -> bool:
        """Return whether nothing waits: what is in hand is all in flight."""
        return len(self._waiters) <= len(self._holding)

    def now(self) -> float:
        """Return the driver's time in seconds."""
        clock = self._clock
        return self.clock.time() if clock is None else clock.time()

    def snapshot(self) -> Any:
        """Return the scheduler's snapshot, with every event taken in that was told before."""
        return self._read(
            lambda: self._core.snapshot(None if self._clock is None else self._clock.time())
        )

    def held(self) -> list[WaitingGroup]:
        """Return what waits, by class, tenant and cause."""
        held: list[WaitingGroup] = self._read(self._core.waiting.held)
        return held

    def place(self, request_id: int) -> QueuePosition | None:
        """Return where a request stands that waits; None if it does not."""
        place: QueuePosition | None = self._read(
            lambda: self._core.waiting.place(request_id, now=max(self.now(), self._last_now))
        )
        return place

    def outlook(self, request: Request) -> Outlook | None:
        """Return how a request would fare that came now; None if no upstream serves its model."""
        outlook: Outlook | None = self._read(
            lambda: self._core.waiting.outlook(request, now=max(self.now(), self._last_now))
        )
        return outlook

    def _read(self, read: Callable[[], Any]) -> Any:
        """Return what is read of the scheduler once every event told before is taken in."""
        if self._worker == threading.get_ident():  # an observer asks, in the middle of a decision
            return read()
        with UNINTERRUPTED:
            with self._turn:
                self._empty_inbox(None)
                found = read()
            self._work(None)
        return found

    def submit(self, request: Request, waiter: Waiter) -> None:
        """Hand a new request to the scheduler; its word comes to the waiter, perhaps at once.

        Raises:
            ProtocolError: a request with this id is still in hand.

        """
        if request.id in self._waiters:
            raise ProtocolError(
                f"request {request.id} is already in hand: ids must be unique; "
                "do two gates share one driver but not one counter?"
            )
        self._waiters[request.id] = waiter
        try:
            self.tell(Arrived(request))
        except BaseException:
            self._waiters.pop(request.id, None)
            raise

    def measure_stalls(self) -> None:
        """Watch the loop that runs here, or the clock's thread, while anything is in flight."""
        if (pulse := self._pulse()) is not None:
            pulse.start()

    def waited_on_here(self) -> bool:
        """Return whether who blocks here blocks what may free it.

        That is an event loop that runs in this thread and has calls in hand, or the scheduler,
        whose observer, or log handler, asks in the middle of a decision.
        """
        if self._worker == threading.get_ident():
            return True
        loop = asyncio._get_running_loop()  # noqa: SLF001 - None where none runs
        return loop is not None and any(
            waiter.loop is loop for waiter in list(self._waiters.values())
        )

    def tell(self, event: Event) -> None:
        """Tell the scheduler what happened, now.

        Raises:
            ProtocolError: the event cannot have happened.

        """
        with UNINTERRUPTED:
            pulse = self._pulse()
            if pulse is not None:
                if type(event) is Arrived:
                    pulse.start()
                if silent_s := pulse.stalled_s():
                    self._silent(pulse.clock, silent_s, event)
            self._inbox.append(event)
            self._work(event)

    def close(self) -> None:
        """Call the timer off; later events are still taken, but nothing wakes by itself."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pulse(self) -> Pulse | None:
        """Return what measures the stalls of the loop that runs here, or of the clock's thread."""
        loop = asyncio._get_running_loop()  # noqa: SLF001 - None where none runs
        if loop is None:
            clock = self._clock
            if clock is None or isinstance(clock, asyncio.AbstractEventLoop):
                return None  # a finaliser, in a thread that the loop's timers are not for
            if self._clock_pulse is None:
                self._clock_pulse = Pulse(clock, self._on_beat, self._silent)
            return self._clock_pulse
        pulse: Pulse | None = getattr(self._here, "pulse", None)
        if pulse is None or pulse.clock is not loop:
            pulse = self._here.pulse = Pulse(loop, self._on_beat, self._silent)
        return pulse

    def _on_beat(self) -> bool:
        """Look for slots that nobody can give back; return whether any is held."""
        wanted = len(self._waiters) > len(self._holding)
        if wanted:
            self._free_closed_loops()
        self.unread.look(wanted=wanted)
        return bool(self._holding) and not self._closed

    def _free_closed_loops(self) -> None:
        """Give back what coroutines held when their event loop was closed under them."""
        for request_id, waiter in list(self._waiters.items()):
            if waiter.loop is not None and waiter.loop.is_closed():
                self.tell(Cancelled(request_id))

    def _silent(self, clock: Clock, silent_s: float, event: Event | None = None) -> None:
        """Tell of a stall; a loop that was not run, as none of its calls was in hand, is none."""
        new = event.request.id if isinstance(event, Arrived) else None
        if not isinstance(clock, asyncio.AbstractEventLoop) or any(
            waiter.loop is clock and request_id != new
            for request_id, waiter in list(self._waiters.items())
        ):
            self._stalled(silent_s)

    def _stalled(self, silent_s: float) -> None:
        if silent_s >= STALL_TOLD_S and not self._told_stall:
            self._told_stall = True
            logger.warning(
                "this process, or the event loop of thread %s, could not act for %.2f s (a "
                "blocking call in a coroutine, a busy machine, a suspended process?): replies that "
                "came meanwhile tell nothing about the provider; further stalls are not logged",
                threading.current_thread().name,
                silent_s,
            )
        self._inbox.append(event := DriverStalled(self.now() - silent_s))
        with UNINTERRUPTED:
            self._work(event)

    def _work(self, mine: Event | _Tick | None) -> None:
        """Work the inbox empty, unless someone else is at it (who will then see ours)."""
        error: Exception | None = None
        while self._inbox and self._turn.acquire(blocking=False):
            try:
                error = self._empty_inbox(mine) or error
            finally:
                self._turn.release()
        if error is not None:
            raise error

    def _empty_inbox(self, mine: Event | _Tick | None) -> Exception | None:
        """Carry out everything in the inbox, holding the turn; return what failed of `mine`."""
        error: Exception | None = None
        self._worker = threading.get_ident()
        try:
            while self._inbox:
                event = self._inbox.popleft()
                try:
                    self._carry(event)
                except Exception as problem:  # noqa: BLE001 - raised by the caller or reported
                    if event is mine:
                        error = problem
                    else:
                        self._report(event, problem)
            self._arm()
        finally:
            self._worker = 0
        return error

    def _carry(self, item: Event | _Tick) -> None:
        now = self.now()
        if now < self._last_now:
            now = self._last_now
        self._last_now = now
        if isinstance(item, _Tick):
            if item.due == self._timer_due:
                self._timer = None
            # Loops fire timers up to one clock resolution early; the hour has come all the same.
            now = self._last_now = max(now, item.due)
            due = self._next_due()
            if due is None or due > now:
                return
            event: Event = Woke()
        else:
            event = item
            if isinstance(event, _LANDINGS):
                self._holding.discard(event.request_id)
                if not isinstance(event, _ATTEMPTS) or not event.retryable:
                    self._waiters.pop(event.request_id, None)
        actions = self._core.handle(event, now=now)
        self._show_event(now, event)  # what the core refuses has not happened: no log has it
        first = True
        for action in actions:
            self._show_action(now, action)
            if not isinstance(action, _TOLD_ONLY):
                self._deliver(action, first=first)
                first = False
        while self._core.faults:
            logger.error(
                "the scheduler failed on %s and ended at most the one request that it was at",
                type(event).__name__,
                exc_info=self._core.faults.popleft(),
            )

    def _deliver(self, action: Decision, *, first: bool) -> None:
        request_id = action.request.id
        if isinstance(action, Reject):
            waiter = self._waiters.pop(request_id, None)
        else:
            waiter = self._waiters.get(request_id)
            if isinstance(action, Dispatch):
                self._holding.add(request_id)
        heard = waiter is not None and waiter.deliver(action, first=first)
        if not heard and not isinstance(action, _NO_SLOT):
            # Its loop was closed under it, or a finaliser got there first: give the slot back.
            self._waiters.pop(request_id, None)
            self._inbox.append(Cancelled(request_id))

    def _show_event(self, now: float, event: Event) -> None:
        for observer in self.observers:
            try:
                observer.event(now, event)
            except BaseException:  # a signal's handler has no turn here: whatever it is, its own
                logger.exception("an observer failed on %s", type(event).__name__)

    def _show_action(self, now: float, action: Action) -> None:
        for observer in self.observers:
            try:
                observer.action(now, action)
            except BaseException:  # likewise
                logger.exception("an observer failed on %s", type(action).__name__)

    def _report(self, event: Event | _Tick, problem: Exception) -> None:
        """Tell the one whom the failed event was about; the log, if there is none."""
        request_id = getattr(event, "request_id", None)
        if isinstance(event, Arrived):
            request_id = event.request.id
        waiter = self._waiters.pop(request_id, None) if request_id is not None else None
        if waiter is not None:
            waiter.fail(problem)
        else:
            self.faults += 1
            logger.error("the scheduler refused %s", type(event).__name__, exc_info=problem)

    def _next_due(self) -> float | None:
        """Return when the scheduler wants to be woken; in a moment if it cannot say."""
        try:
            return self._core.next_wakeup()
        except Exception:
            if not self.faults:
                logger.exception("the scheduler cannot say when it is to be woken: a second later")
            self.faults += 1
            return self._last_now + FAULT_RETRY_S

    def _arm(self) -> None:
        due = self._next_due()
        if due is None or self._closed:
            return
        if self._timer is not None:
            # A timer that is too early fires for nothing, which is cheaper than re-arming it
            # with every request.
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self.clock.call_at(due, partial(self._on_timer, due))

    def _on_timer(self, due: float) -> None:
        self._free_closed_loops()
        tick = _Tick(due)
        self._inbox.append(tick)
        try:
            with UNINTERRUPTED:
                self._work(tick)
        except Exception:
            self.faults += 1
            logger.exception("the scheduler failed on a timer")
