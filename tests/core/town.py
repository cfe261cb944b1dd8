"""Callers at a steady pace and providers that answer by a rule, for stories of many requests."""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Event,
    Failed,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.scheduler import Scheduler
from tests.core.story import decisions, request

Rule = Callable[[random.Random], str]
"""What becomes of an attempt: "reply", "broken", "unreachable", "hang", or a refusal's cause."""


def always(what: str) -> Rule:
    """Return the rule of a provider that does the same to everybody."""
    return lambda _dice: what


def partly(share: float, what: str) -> Rule:
    """Return the rule of a provider that does it to a share of its attempts, by chance."""
    return lambda dice: what if dice.random() < share else "reply"


@dataclass
class Town:
    """What callers and providers saw.

    Attributes:
        rules: by upstream.
        answer_s: how long a provider takes, whatever it answers.
        patience_s: after which a caller leaves.
        attempts: sent, by upstream.
        outcomes: requests by how they ended.
        sent: every attempt's time and upstream.

    """

    penstock: Scheduler
    rules: dict[str, Rule]
    answer_s: float = 0.05
    patience_s: float = 1e9
    retry_after_s: float | None = None
    attempts: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    sent: list[tuple[float, str]] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    now: float = 0.0
    _dice: random.Random = field(default_factory=lambda: random.Random(1))
    _due: list[tuple[float, int, int, int, Event]] = field(default_factory=list)
    _flying: dict[int, int] = field(default_factory=dict)
    _arrived: dict[int, float] = field(default_factory=dict)
    _serial: int = 0

    def ask(
        self, per_s: float, until: float, *, model: str = "", deadline_s: float = 300.0
    ) -> None:
        """Let callers ask from now on until then."""
        for k in range(round((until - self.now) * per_s)):
            at = self.now + k / per_s
            self._serial += 1
            one = request(self._serial, at=at, deadline=at + deadline_s, model=model)
            self._plan(at, Arrived(one), 0)
            self._plan(at + self.patience_s, Cancelled(one.id), 0)

    def run(self, until: float) -> None:
        """Let time pass."""
        while True:
            wakes_at = self.penstock.next_wakeup()
            next_at = self._due[0][0] if self._due else 1e18
            at = next_at if wakes_at is None else min(next_at, wakes_at)
            if at > until:
                break
            self.now = at
            if next_at > at:
                self._carry_out(self.penstock.handle(Woke(), now=at))
                continue
            *_, flight, event = heapq.heappop(self._due)
            self._happen(event, flight)
        self.now = until

    def _plan(self, at: float, event: Event, flight: int) -> None:
        self._serial += 1
        rank = 1 if isinstance(event, Arrived) else 0
        heapq.heappush(self._due, (at, rank, self._serial, flight, event))

    def _happen(self, event: Event, flight: int) -> None:
        if isinstance(event, Arrived):
            self._arrived[event.request.id] = self.now
        elif isinstance(event, Cancelled):
            if self._arrived.pop(event.request_id, None) is None:
                return
            self._flying.pop(event.request_id, None)
            self.outcomes["left"] += 1
        else:
            id_ = getattr(event, "request_id", 0)
            if self._flying.get(id_) != flight:
                return
            del self._flying[id_]
            if isinstance(event, Completed):
                self.outcomes["completed"] += 1
                self.waits_s.append(self.now - self._arrived.pop(id_))
        self._carry_out(self.penstock.handle(event, now=self.now))

    def _carry_out(self, actions: list[Action]) -> None:
        for action in decisions(actions):
            id_ = action.request.id
            if isinstance(action, Reject):
                self.outcomes[action.reason] += 1
                del self._arrived[id_]
            elif isinstance(action, Dispatch):
                self.attempts[action.upstream] += 1
                self.sent.append((self.now, action.upstream))
                self._serial += 1
                self._flying[id_] = self._serial
                what = self.rules[action.upstream](self._dice)
                if what != "hang":
                    event = self._answer(id_, what)
                    self._plan(self.now + self.answer_s, event, self._serial)

    def _answer(self, id_: int, what: str) -> Event:
        jitter = self._dice.random()
        if what == "reply":
            return Completed(id_, 100)
        if what in ("broken", "unreachable"):
            return Failed(id_, retryable=True, jitter=jitter, reached=what == "broken")
        return Throttled(id_, RefusalCause(what), self.retry_after_s, jitter)
