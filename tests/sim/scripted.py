"""Schedulers of a few lines, for tests of the engine alone."""

from collections.abc import Callable, Sequence

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Event,
    FirstToken,
    LimitsSeen,
    Reject,
    Why,
    Woke,
)
from penstock.core.model import Request, TokenEstimate, bucket_of
from penstock.sim.workload import Load, Workload

UPSTREAM = "default"


def why() -> Why:
    return Why(0.0, "short", 0.0, 8.0, 0, 0, 0.0, 0, 0, 0.0, 0.0, {})


def load(id_: int, at: float, tokens: int, *, prompt: int = 0, within_s: float = 1e6) -> Load:
    estimate = TokenEstimate(max(1, tokens), max(1, tokens), "oracle")
    request = Request(id_, "all", at, estimate, at + within_s, prompt_tokens=prompt)
    return Load(request, tokens, bucket_of(tokens), at + within_s)


def workload(*calls: tuple[float, int]) -> Workload:
    loads = (load(n, at, tokens) for n, (at, tokens) in enumerate(calls, start=1))
    return Workload(tuple(loads), ())


class Direct:
    """Dispatches everything at once, and writes down what it is told."""

    def __init__(self, *, again: bool = False) -> None:
        self.told: list[tuple[float, Event]] = []
        self._again = again
        self._requests: dict[int, Request] = {}

    def handle(self, event: Event, *, now: float) -> list[Action]:
        self.told.append((now, event))
        if isinstance(event, Arrived):
            self._requests[event.request.id] = event.request
            return [Dispatch(event.request, UPSTREAM, why())]
        if isinstance(event, Completed | FirstToken | LimitsSeen | Woke | Cancelled):
            return []
        return self.on_trouble(event)

    def on_trouble(self, event: Event) -> list[Action]:
        request_id = getattr(event, "request_id", None)
        if request_id is None or getattr(event, "retryable", True) is False:
            return []
        request = self._requests[request_id]
        if self._again:
            return [Dispatch(request, UPSTREAM, why())]
        return [Reject(request, "upstream", None, why())]

    def next_wakeup(self) -> float | None:
        return None

    def kinds(self) -> list[tuple[float, str]]:
        return [(round(now, 6), type(event).__name__) for now, event in self.told]


class Answering:
    """Answers each event by a function; wakes when told to."""

    def __init__(
        self, answer: Callable[[Event, float], list[Action]], wakes: Sequence[float] = ()
    ) -> None:
        self._answer = answer
        self._wakes = list(wakes)

    def handle(self, event: Event, *, now: float) -> list[Action]:
        if isinstance(event, Woke) and self._wakes and self._wakes[0] <= now:
            self._wakes.pop(0)
        return self._answer(event, now)

    def next_wakeup(self) -> float | None:
        return self._wakes[0] if self._wakes else None
