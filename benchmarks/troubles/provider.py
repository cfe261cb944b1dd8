"""A provider in trouble: what it answers to an attempt, and when. It knows no clock and no HTTP."""

import heapq
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

SERVICE_S = 0.5
SLOTS = 8
"""Calls that it works on at once; the others queue inside it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an attempt gets.

    Attributes:
        status: HTTP status.
        headers: beside its content type.
        body: in one piece, unless it streams.
        after_s: seconds from the attempt to the first byte.
        pieces: of a stream; each with the seconds before it.
        ends: "whole", "cut" (the connection closes before the end), "reset" (without an answer), or
            "silent" (the client gives up then; over a socket, as "reset").

    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    after_s: float = 0.02
    pieces: tuple[tuple[float, bytes], ...] = ()
    ends: str = "whole"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a trouble sees of an attempt.

    Attributes:
        now: seconds since the start.
        number: of the call.
        nth: which attempt of the call it is, from 1.
        luck: uniform in [0, 1), the same in both arms.
        busy: calls that the provider works on or queues.
        recent: attempts in the last minute.

    """

    now: float
    number: int
    nth: int
    luck: float
    busy: int
    recent: int


Fault = Callable[[Attempt], Answer | None]
"""What goes wrong with an attempt; None if nothing does. `Answer(200)` without a body is slow."""


@dataclass
class Provider:
    """Serves attempts, as far as its trouble lets it."""

    name: str
    fault: Fault
    seed: int
    slots: int = SLOTS
    service_s: float = SERVICE_S
    asked: int = 0
    times: list[float] = field(default_factory=list)
    _nth: Counter[int] = field(default_factory=Counter)
    _free_at: list[float] = field(default_factory=list)

    def answer(self, number: int, *, streams: bool, now: float) -> Answer:
        """Take one attempt."""
        self.asked += 1
        self._nth[number] += 1
        nth = self._nth[number]
        while self._free_at and self._free_at[0] <= now:
            heapq.heappop(self._free_at)
        self.times = [at for at in self.times if at > now - 60.0]
        luck = random.Random(f"{self.seed}/{self.name}/{number}/{nth}").random()
        seen = Attempt(now, number, nth, luck, len(self._free_at), len(self.times))
        fault = self.fault(seen)
        if fault is not None and (
            fault.status != 200 or fault.body or fault.ends in ("reset", "silent")
        ):
            return fault
        self.times.append(now)
        return self._good(fault, streams, now)

    def _good(self, fault: Answer | None, streams: bool, now: float) -> Answer:
        slow_s = 0.0 if fault is None else fault.after_s
        waits = sorted(self._free_at)
        start = waits[-self.slots] if len(waits) >= self.slots else now
        took_s = max(0.0, start - now) + self.service_s + slow_s
        heapq.heappush(self._free_at, now + took_s)
        extra = () if fault is None else fault.headers
        if not streams:
            body = REPLY if fault is None or not fault.pieces else fault.pieces[0][1]
            return Answer(200, extra, body, took_s)
        pieces = tuple((self.service_s / 5, event) for event in STREAM)
        ends = "whole" if fault is None else fault.ends
        if ends == "cut":
            pieces = pieces[:2]
        return Answer(200, extra, b"", took_s - self.service_s, pieces, ends)


def _sse(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


USAGE = {"prompt_tokens": 20, "completion_tokens": 40, "total_tokens": 60}
REPLY = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ho"}}],
        "usage": USAGE,
    }
).encode()
STREAM = (
    *(_sse({"choices": [{"index": 0, "delta": {"content": word}}]}) for word in ("a", "b", "c")),
    _sse({"choices": [], "usage": USAGE}),
    _sse(b"[DONE]"),
)


def error(message: str, code: str = "", kind: str = "") -> bytes:
    """Return an error's body in OpenAI's dialect."""
    return json.dumps({"error": {"message": message, "code": code or None, "type": kind}}).encode()


def refusal(
    status: int, *, wait: object = None, body: bytes = b"", more: dict[str, str] | None = None
) -> Answer:
    """Return a refusal."""
    headers = tuple((more or {}).items())
    if wait is not None:
        headers = (*headers, ("retry-after", str(wait)))
    return Answer(status, headers, body or error("no"))


def during(start: float, end: float, answer: Answer | Fault, *, share: float = 1.0) -> Fault:
    """Return a fault that befalls a share of the attempts of a time."""

    def fault(attempt: Attempt) -> Answer | None:
        if not start <= attempt.now < end or attempt.luck >= share:
            return None
        return answer(attempt) if callable(answer) else answer

    return fault


def held_until(end: float) -> Fault:
    """Return a fault in which answers come only after `end`."""
    return lambda attempt: Answer(200, after_s=max(0.0, end - attempt.now))


def poison(answer: Answer, *, every: int = 20) -> Fault:
    """Return a fault that always befalls the same calls."""
    return lambda attempt: answer if attempt.number % every == 7 else None


def both(first: Fault, second: Fault) -> Fault:
    """Return the fault of whoever suffers the first one, and else the second."""
    return lambda attempt: first(attempt) or second(attempt)


def per_minute(limit: int, *, stated: bool) -> Fault:
    """Return a limit of attempts a minute."""

    def fault(attempt: Attempt) -> Answer | None:
        left = max(0, limit - attempt.recent)
        said = {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(left),
        }
        if attempt.recent < limit:
            return Answer(200, tuple(said.items()), after_s=0.0) if stated else None
        return refusal(429, wait=5 if stated else None, more=said if stated else None)

    return fault


def at_once(limit: int, answer: Answer) -> Fault:
    """Return a limit of calls at once, above which the provider refuses."""
    return lambda attempt: answer if attempt.busy >= limit else None


def with_stream(answer: Answer, pieces: tuple[tuple[float, bytes], ...]) -> Answer:
    """Return a good answer with another body."""
    return replace(answer, pieces=pieces)
