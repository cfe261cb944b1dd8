"""What a program does with its calls: sends each when its time has come, tries again as SDKs do."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from benchmarks.troubles.threads import VirtualThreads

FIRST_S, GOODPUT_FROM_S, GOODPUT_S = 2.5, 5.0, 10.0
"""To the first answer after a trouble: a back-off or a probe interval of 2 s, a call of 0.5 s. From
when on, and for how long, goodput is measured."""
RETRIES = 2
"""As openai 3 and anthropic 2 set them."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What a program asks.

    Attributes:
        count: of the calls.
        every_s: between two calls; 0 if all come at once.
        together: so many come at one time.
        in_time_s: a call that is answered later is of no use.
        told: whether each call states that as its deadline.
        leaves: whether its caller leaves then; no thread can.
        streams: whether each call streams.

    """

    count: int = 200
    every_s: float = 0.25
    together: int = 1
    in_time_s: float = 30.0
    told: bool = False
    leaves: bool = False
    streams: bool = False

    def comes_at(self, number: int) -> float:
        """Return when a call is made, in seconds from the start."""
        return number // self.together * self.together * self.every_s

    @property
    def headers(self) -> dict[str, str]:
        """What each call says beside its body."""
        return {"x-penstock-deadline-ms": f"{self.in_time_s * 1e3:.0f}"} if self.told else {}


@dataclass
class Ends:
    """When which calls were answered well."""

    calls: Calls
    at: dict[int, float] = field(default_factory=dict)
    asked: int = 0

    @property
    def in_time(self) -> int:
        """How many calls were answered in time."""
        calls = self.calls
        return sum(at - calls.comes_at(number) <= calls.in_time_s for number, at in self.at.items())

    def first_after_s(self, until: float) -> float:
        """Return how long after a time the first call succeeded that ended after it."""
        return min((at for at in self.at.values() if at > until), default=float("inf")) - until

    def goodput_after(self, until: float) -> float:
        """Return the calls that ended from 5 to 15 s after it, as a share of those that came."""
        start = until + GOODPUT_FROM_S
        ended = sum(start <= at < start + GOODPUT_S for at in self.at.values())
        return ended * self.calls.every_s / GOODPUT_S

    def recovered(self, until: float) -> bool:
        """Say whether calls were answered soon after a time, and soon all of them."""
        at_once = not self.calls.every_s  # nobody comes later, so there is no goodput
        return self.first_after_s(until) <= FIRST_S and (
            at_once or self.goodput_after(until) >= 0.95
        )


def body_of(number: int, *, streams: bool) -> dict[str, Any]:
    """Return a call's body."""
    said: dict[str, Any] = {"stream": True} if streams else {}
    messages = [{"role": "user", "content": str(number)}]
    return {"model": "m", "max_tokens": 40, "messages": messages, **said}


def is_good(response: Any, *, streams: bool) -> bool:
    """Say whether a program can use an answer that has been read."""
    if response.status_code != 200:
        return False
    if streams:
        return bytes(response.content).endswith(b"[DONE]\n\n")
    try:
        return bool(json.loads(response.content)["choices"])
    except (ValueError, KeyError):
        return False


def pause_s(response: Any, attempt: int, luck: float) -> float | None:
    """Return how long the SDKs sleep before they try again; None if they do not."""
    headers = {} if response is None else response.headers
    if response is not None:
        advice = headers.get("x-should-retry")
        status = response.status_code
        if advice == "false" or attempt > RETRIES:
            return None
        if advice != "true" and status not in (408, 409, 429) and status < 500:
            return None
    elif attempt > RETRIES:
        return None
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            asked_s = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if 0 < asked_s <= 60:
            return asked_s
    return float(min(0.5 * 2 ** (attempt - 1), 8.0) * (1.0 - 0.25 * luck))


def luck_of(number: int, attempt: int) -> float:
    """Return the jitter of a pause, the same in both arms."""
    return random.Random(f"pause/{number}/{attempt}").random()


async def ask(client: Any, url: str, number: int, calls: Calls) -> bool:
    """Make one call as an async SDK does; say whether its answer is of use."""
    attempt, streams = 0, calls.streams
    while True:
        attempt += 1
        response = None
        with contextlib.suppress(httpx2.TransportError):
            response = await client.post(
                url, json=body_of(number, streams=streams), headers=calls.headers
            )
        if response is not None and is_good(response, streams=streams):
            return True
        wait_s = pause_s(response, attempt, luck_of(number, attempt))
        if wait_s is None or (response is not None and response.status_code == 200):
            return False
        await asyncio.sleep(wait_s)


def program_sync(
    client: Any,
    url: str,
    clock: VirtualThreads,
    calls: Calls,
    numbers: Sequence[int] | None = None,
) -> Ends:
    """Make every call at its time in a thread of its own, and wait for all of them."""
    ends = Ends(calls)
    numbers = range(calls.count) if numbers is None else numbers
    start = clock.time() - calls.comes_at(numbers[0])

    def call(number: int) -> Callable[[], None]:
        def one() -> None:
            if ask_sync(client, url, number, calls, clock.sleep):
                ends.at[number] = clock.time() - start

        return one

    clock.run([(start + calls.comes_at(number), call(number)) for number in numbers])
    return ends


def ask_sync(
    client: Any, url: str, number: int, calls: Calls, sleep: Callable[[float], object]
) -> bool:
    """Make one call as a sync SDK does; say whether its answer is of use."""
    attempt, streams = 0, calls.streams
    while True:
        attempt += 1
        response = None
        with contextlib.suppress(httpx2.TransportError):
            response = client.post(
                url, json=body_of(number, streams=streams), headers=calls.headers
            )
        if response is not None and is_good(response, streams=streams):
            return True
        wait_s = pause_s(response, attempt, luck_of(number, attempt))
        if wait_s is None or (response is not None and response.status_code == 200):
            return False
        sleep(wait_s)


async def program(
    client: Any, url: str, calls: Calls, numbers: Sequence[int] | None = None
) -> Ends:
    """Make every call at its time, the first of them now, and wait for all of them."""
    ends = Ends(calls)
    numbers = range(calls.count) if numbers is None else numbers
    loop = asyncio.get_running_loop()
    start = loop.time() - calls.comes_at(numbers[0])

    async def one(number: int) -> None:
        await asyncio.sleep(start + calls.comes_at(number) - loop.time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(calls.in_time_s if calls.leaves else None):
                if await ask(client, url, number, calls):
                    ends.at[number] = loop.time() - start

    await asyncio.gather(*(one(number) for number in numbers))
    return ends
