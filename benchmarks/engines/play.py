"""Plays the arms by turns, each a few seconds at a time, at a share of what the engine can do.

A shared machine's pace swings fivefold within seconds. So the engine's capacity and its latency
with just all places taken are measured anew in each round, the round's load and deadlines follow
from them, and every arm is sent the round's same calls, one arm after the other.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from benchmarks.engines.arms import Arm, arm
from benchmarks.engines.engine import Engine
from benchmarks.engines.load import KINDS, Call, draw
from penstock.metrics import RequestOutcome, RequestRecord

SAMPLE_S = 0.1


@dataclass(frozen=True, slots=True)
class Cell:
    """What is compared: a load as a share of the capacity, and the share of streamed calls."""

    load: float
    streamed: float
    rounds: int = 4
    slice_s: float = 8.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Pace:
    """What the engine did with just all of its places taken."""

    calls_per_s: float
    latency_s: dict[str, float]

    def deadline_s(self, call: Call) -> float:
        """Return how soon the call's reply is wanted."""
        return call.kind.patience * self.latency_s[call.kind.name]


@dataclass(slots=True)
class Played:
    """What became of an arm's calls.

    Attributes:
        records: by class.
        tokens: of all replies.
        span_s: seconds from a slice's start to its last reply, summed.
        rounds: share of the calls in time, in each round.
        windows: of each round, as sampled.
        unused: share of the places that nobody used while a call was open, as sampled.
        wrong_length: replies with another number of tokens than was asked for.
        in_flight: the scheduler's count just after each reply.

    """

    records: dict[str, list[RequestRecord]] = field(
        default_factory=lambda: {k.name: [] for k in KINDS}
    )
    tokens: int = 0
    span_s: float = 0.0
    rounds: list[float] = field(default_factory=list)
    windows: list[list[float]] = field(default_factory=list)
    unused: list[float] = field(default_factory=list)
    wrong_length: int = 0
    in_flight: list[int] = field(default_factory=list)

    @property
    def every(self) -> list[RequestRecord]:
        """The records of all classes."""
        return [record for records in self.records.values() for record in records]


async def pace_of(engine: Engine, cell: Cell, number: int) -> Pace:
    """Measure: as many callers as places, each asks again as soon as it has its reply."""
    latencies: dict[str, list[float]] = {kind.name: [] for kind in KINDS}
    calls = iter(
        draw(100_000, rate_per_s=1.0, streamed=cell.streamed, seed=f"pace/{cell.seed}/{number}")
    )
    async with arm("direct", engine) as way:
        start = time.monotonic()

        async def caller(who: int) -> None:
            chance = random.Random(f"pace/{number}/{who}")
            enough_s = cell.slice_s / 2
            while time.monotonic() < start + enough_s or not all(latencies.values()):
                call = next(calls)
                began = time.monotonic()
                await way.send(call, engine.model, call.prompt(chance, f"pace/{number}"), 1e6)
                latencies[call.kind.name].append(time.monotonic() - began)

        await asyncio.gather(*(caller(who) for who in range(engine.slots)))
        done = sum(map(len, latencies.values()))
        took_s = time.monotonic() - start
    return Pace(done / took_s, {name: statistics.median(each) for name, each in latencies.items()})


async def play_slice(
    engine: Engine, way: Arm, calls: Sequence[Call], pace: Pace, played: Played, tag: str
) -> None:
    """Send each call when it is due and wait for all replies."""
    start = time.monotonic()
    open_calls = in_time = 0
    windows: list[float] = []

    async def one(number: int, call: Call) -> None:
        nonlocal open_calls, in_time
        prompt = call.prompt(random.Random(f"{tag}/{number}"), tag)
        await asyncio.sleep(max(0.0, start + call.at_s - time.monotonic()))
        open_calls += 1
        arrived, deadline_s = time.monotonic() - start, pace.deadline_s(call)
        tokens = await way.send(call, engine.model, prompt, deadline_s)
        open_calls -= 1
        played.in_flight.append(way.in_flight())
        outcome = RequestOutcome.SHED if tokens is None else RequestOutcome.COMPLETED
        bucket = "short" if call.output_tokens <= 64 else "medium"
        ended = time.monotonic() - start
        record = RequestRecord(bucket, arrived, arrived + deadline_s, ended, outcome)
        played.records[call.kind.name].append(record)
        in_time += record.in_time
        played.tokens += tokens or 0
        played.wrong_length += tokens not in (None, call.output_tokens)

    async def watch() -> None:
        async with httpx2.AsyncClient(timeout=None) as client:
            while True:
                inside = await engine.inside(client)
                wanted = min(engine.slots, open_calls)
                if wanted:
                    played.unused.append(max(0, wanted - inside.processing) / engine.slots)
                if (window := way.window()) is not None:
                    windows.append(window)
                await asyncio.sleep(SAMPLE_S)

    watching = asyncio.create_task(watch())
    try:
        await asyncio.gather(*(one(number, call) for number, call in enumerate(calls)))
    finally:
        watching.cancel()
    played.span_s += time.monotonic() - start
    played.rounds.append(in_time / len(calls))
    played.windows.append(windows)


async def play(
    engine: Engine, cell: Cell, names: Sequence[str], log: Path | None = None
) -> dict[str, Played]:
    """Play all rounds of a cell; each arm keeps what it learnt from round to round.

    `log` is the decision log of penstock's default; the sidecar's is named beside it.
    """
    played = {name: Played() for name in names}
    async with AsyncExitStack() as stack:
        logs = {"penstock": log, "sidecar": log and log.with_stem(f"{log.stem}-sidecar")}
        ways = [
            await stack.enter_async_context(arm(name, engine, logs.get(name))) for name in names
        ]
        for number in range(cell.rounds):
            pace = await pace_of(engine, cell, number)
            rate_per_s = cell.load * pace.calls_per_s
            calls = draw(
                max(8, round(rate_per_s * cell.slice_s)),
                rate_per_s=rate_per_s,
                streamed=cell.streamed,
                seed=f"{cell.seed}/{number}",
            )
            first = number % len(ways)
            for way in ways[first:] + ways[:first]:
                tag = f"{way.name}/{number}"
                await play_slice(engine, way, calls, pace, played[way.name], tag)
    return played
