"""What callers send, and what must hold when all of them have ended."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from penstock import Penstock
from penstock.runtime.clock import Clock
from tests.chaos.books import Books
from tests.chaos.provider import BEGUN, GOOD, NUMBERS, Anything

CALLERS = 16
TTL_S = 30.0
MAX_PAUSE_S = 30.0
"""Or the first refusal that names a month would end the story."""
PAUSES_S = (0.0, 1.0, 30.0)
"""After a call that did not end well; else an open circuit turns all the others away at once."""


@dataclass
class Found:
    """What a run left behind; all zero and empty if all is well."""

    requests: int = 0
    arrived: int = 0
    answered: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            self.wrong.append(f"{what}: {got!r} instead of {wanted!r}")


def body_of(number: int, chance: random.Random) -> dict[str, Any]:
    """Return a call's body; its numbers may be anything."""
    body: dict[str, Any] = {
        "model": "m",
        "user": str(number),
        "messages": [{"role": "user", "content": "hello"}],
    }
    if chance.random() < 0.5:
        body["stream"] = True
    if chance.random() < 0.2:
        name = chance.choice(("n", "max_tokens", "max_completion_tokens", "best_of"))
        body[name] = chance.choice((10**160, 10**6, -1, 0, 1.5, "many", None, True, [1], 2048))
    return body


def hints(chance: random.Random) -> dict[str, str]:
    """Return headers of a caller that asks for anything."""
    if chance.random() < 0.8:
        return {}
    name = chance.choice(("x-penstock-deadline-ms", "x-penstock-class", "x-penstock-tenant"))
    return {name: chance.choice((*NUMBERS, "500", "batch"))}


async def crowd(
    requests: int, chance: random.Random, one: Callable[[int], Awaitable[bool]]
) -> None:
    """Let callers make their calls one after the other, and wait for all."""
    numbers = iter(range(requests))

    async def caller() -> None:
        for number in numbers:
            if not await one(number):
                await asyncio.sleep(chance.choice(PAUSES_S))

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


def program(books: Books, clock: Clock, **settings: Any) -> Penstock:
    """Return what schedules a program's calls, with books kept of it."""
    more = {"queue_ttl_s": TTL_S, "max_pause_s": MAX_PAUSE_S, **settings}
    return Penstock(observers=[books], tracer=None, clock=clock, **more)


def closed(program: Penstock, found: Found) -> None:
    """Nobody of the program's is left; then it is closed."""
    for name, state in program.snapshot().items():
        at_rest(name, state, found)
        found.expect("in hand", program.outlet(name).driver.in_hand, 0)
    program.close()


def booked(provider: Anything, books: Books, found: Found) -> Found:
    """Return what was found, the books' word included.

    Nothing is sent again once a reply has been good, or content of a stream has been shown.
    """
    found.arrived = books.arrived
    found.expect("requests that have not ended", books.open, 0)
    found.wrong += books.wrong
    for number, answers in provider.attempts.items():
        for at, answer in enumerate(answers[:-1]):
            if answer in (GOOD, BEGUN):
                found.wrong.append(f"call {number} was sent again after {answers[: at + 1]}")
    return found


def at_rest(name: str, state: Any, found: Found) -> None:
    """Nothing waits, nothing flies, no token is reserved."""
    found.expect(f"{name} waiting", (state.waiting, state.deferred, state.in_flight), (0, 0, 0))
    for upstream in state.upstreams.values():
        found.expect(f"{name} tokens in flight", upstream.in_flight_tokens, 0)
