"""A crowd of callers, a provider that breaks replies, then refuses everything, then recovers.

All of it over sockets: `penstock mock` with windows of faults, `penstock serve` with its default
stack, and callers that ask, wait for the whole stream, think for a moment and ask again.
"""

import asyncio
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from penstock.experiments.live import Urls, sidecar_and_mock
from penstock.experiments.measure import Table

DEADLINE_S = 600.0
"""Nobody is in such a hurry that a storm could not be waited out."""
RESETS_S = 0.5
"""How long, before the storm, every reply is broken off after its first tokens."""
ESTIMATES = {False: "40,64", True: "300,600"}
THINKING_S = 1.0


@dataclass(frozen=True, slots=True)
class Storm:
    """What is played.

    Attributes:
        calm_s: until the provider refuses.
        storm_s: for how long it refuses everything.
        recovery_s: after the storm, before goodput is measured again.
        measured_s: for how long it is measured, before and after.
        status: what the provider refuses with.
        retry_after_s: what it asks for; None if nothing.

    """

    calm_s: float = 40.0
    storm_s: float = 60.0
    recovery_s: float = 30.0
    measured_s: float = 30.0
    status: int = 529
    retry_after_s: float | None = None
    callers: int = 100
    seed: int = 1

    @property
    def end_s(self) -> float:
        """When nobody asks any more."""
        return self.calm_s + self.storm_s + self.recovery_s + self.measured_s

    def provider(self) -> dict[str, Any]:
        """Return the mock's table."""
        refusing: dict[str, Any] = {
            "kind": "status",
            "from_s": self.calm_s,
            "until_s": self.calm_s + self.storm_s,
            "status": self.status,
        }
        if self.retry_after_s is not None:
            refusing["retry_after_s"] = self.retry_after_s
        breaking = {
            "kind": "reset",
            "from_s": self.calm_s - RESETS_S,
            "until_s": self.calm_s,
            "after_tokens": 2,
        }
        served = {"model": "slots", "slots": 16, "tokens_per_s": 400.0, "ttft_s": 0.05}
        return {**served, "faults": [breaking, refusing]}


@dataclass(slots=True)
class Played:
    """What the callers and the provider saw.

    Attributes:
        asked_at: when each call was made, in seconds from the start.
        streams: (first byte, end, tokens) of each whole reply.
        broken: replies that ended before their end mark, bytes having come.
        answers: calls that had no reply, by status and the sidecar's word.
        stats: the mock's own count.

    """

    storm: Storm
    asked_at: list[float] = field(default_factory=list)
    streams: list[tuple[float, float, int]] = field(default_factory=list)
    broken: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        """How many calls the provider was sent."""
        return int(self.stats["requests"]["/v1/chat/completions"])

    @property
    def refused(self) -> int:
        """How many of them came while it refused everything."""
        return sum(self.stats["refused"].values())

    @property
    def present(self) -> int:
        """How many calls there were for the storm to meet."""
        start, end = self.storm.calm_s, self.storm.calm_s + self.storm.storm_s
        return self.storm.callers + sum(start <= at < end for at in self.asked_at)

    def tokens(self, start: float, end: float) -> float:
        """Return how many tokens of whole replies were streamed in [start, end)."""
        total = 0.0
        for first, last, tokens in self.streams:
            overlap = min(last, end) - max(first, start)
            if overlap > 0:
                total += tokens * overlap / max(1e-6, last - first)
        return total

    @property
    def recovered(self) -> float:
        """Goodput after the storm as a share of that before."""
        storm = self.storm
        calm_end = storm.calm_s - RESETS_S
        before = self.tokens(calm_end - storm.measured_s, calm_end)
        after = self.tokens(storm.end_s - storm.measured_s, storm.end_s)
        return after / max(1.0, before)


async def play_storm(storm: Storm, policy: Table | None = None) -> Played:
    """Play it in real time; takes `storm.end_s` and the last replies' time."""
    with tempfile.TemporaryDirectory(prefix="penstock-storm-") as folder:
        async with sidecar_and_mock(storm.provider(), policy or {}, Path(folder)) as urls:
            return await _callers(storm, urls)


async def _callers(storm: Storm, urls: Urls) -> Played:
    played = Played(storm)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=DEADLINE_S, sock_connect=DEADLINE_S),
    ) as session:
        # The provider's clock starts with the first call that it sees.
        await _stats(session, urls)
        start = time.monotonic()

        async def caller(who: int) -> None:
            chance = random.Random(f"{storm.seed}/{who}")
            while True:
                await asyncio.sleep(chance.uniform(0.0, THINKING_S))
                heavy = chance.random() < 0.3
                tokens = chance.randint(200, 600) if heavy else chance.randint(16, 64)
                if time.monotonic() - start >= storm.end_s:
                    return
                await _ask(session, urls.sidecar, tokens, ESTIMATES[heavy], start, played)

        await asyncio.gather(*(caller(who) for who in range(storm.callers)))
        played.stats = await _stats(session, urls)
    return played


async def _ask(
    session: aiohttp.ClientSession,
    url: str,
    tokens: int,
    estimate: str,
    start: float,
    played: Played,
) -> None:
    headers = {
        "x-mock-output-tokens": str(tokens),
        "x-penstock-deadline-ms": f"{1000 * DEADLINE_S:.0f}",
        "x-penstock-tokens": estimate,
    }
    body = {"model": "mock", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    played.asked_at.append(time.monotonic() - start)
    first = 0.0
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as reply:
            if reply.status != 200:
                played.answers[f"{reply.status} {reply.headers.get('x-penstock-decision')}"] += 1
                return
            async for _ in reply.content.iter_any():
                first = first or time.monotonic() - start
    except aiohttp.ClientPayloadError:
        played.broken += 1
        return
    played.streams.append((first, time.monotonic() - start, tokens))


async def _stats(session: aiohttp.ClientSession, urls: Urls) -> dict[str, Any]:
    async with session.get(f"{urls.mock}/mock/stats") as reply:
        found: dict[str, Any] = await reply.json()
    return found
