"""A scheduler of twenty lines, first come first served: small enough to make it misbehave."""

from collections import deque

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Draining,
    Event,
    Failed,
    Reject,
    Throttled,
    Why,
    Woke,
)
from penstock.core.model import Request
from penstock.errors import ProtocolError


def why(now: float, request: Request) -> Why:
    waited_s = now - request.arrived_at
    return Why(0.25, "short", 0.0, 1.0, 0, 0, waited_s, 0, 0, 1.0, 0.5, {"window": waited_s})


class Window:
    """Lets `size` requests fly; a throttled one flies again after its retry-after."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.waiting: deque[Request] = deque()
        self.flying: dict[int, Request] = {}
        self.resting: dict[int, tuple[float, Request]] = {}
        self.seen: list[tuple[float, Event]] = []
        self.faults: deque[Exception] = deque()

    def handle(self, event: Event, *, now: float) -> list[Action]:
        self.seen.append((now, event))
        answers: list[Action] = []
        match event:
            case Arrived(request):
                self.waiting.append(request)
            case Completed(key) | Failed(key, retryable=False):
                if self.flying.pop(key, None) is None:
                    raise ProtocolError(f"{key} does not fly")
            case Cancelled(key):
                self.flying.pop(key, None)
                self.resting.pop(key, None)
                self.waiting = deque(r for r in self.waiting if r.id != key)
            case Throttled(key) | Failed(key):
                request = self.flying.pop(key)
                pause_s = getattr(event, "retry_after_s", None) or 1.0
                if pause_s > 60:
                    answers.append(Reject(request, "upstream", pause_s, why(now, request)))
                else:
                    self.resting[key] = (now + pause_s, request)
            case Draining():
                answers += [Reject(r, "draining", 5.0, why(now, r)) for r in self.waiting]
                self.waiting.clear()
            case Woke():
                pass
        for key, (until, request) in sorted(self.resting.items()):
            if until <= now:
                del self.resting[key]
                self.waiting.append(request)
        for request in [r for r in self.waiting if r.expires_at <= now]:
            self.waiting.remove(request)
            answers.append(Reject(request, "expired", None, why(now, request)))
        while self.waiting and len(self.flying) < self.size:
            request = self.waiting.popleft()
            self.flying[request.id] = request
            answers.append(Dispatch(request, "mill", why(now, request)))
        return answers

    def next_wakeup(self) -> float | None:
        times = [until for until, _ in self.resting.values()]
        times += [r.expires_at for r in self.waiting]
        return min(times, default=None)

    def snapshot(self, now: float | None = None) -> dict[str, int]:
        return {"in_flight": len(self.flying), "backlog": len(self.waiting) + len(self.resting)}
