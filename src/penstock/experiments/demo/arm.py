"""Plays the plan against one base URL with the openai SDK, and notes how each call ended.

Every arm plays one plan, in the same order at the same times.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import openai

from penstock.core.model import bucket_of
from penstock.metrics import RequestOutcome, RequestRecord

SLOTS = 8
TOKENS_PER_S = 1000.0
"""Of each slot: some ten times a real model's, so that minutes of congestion fit into seconds."""
FIRST_TOKEN_S = 0.02
LOAD = 1.2
"""Work offered, as a multiple of what the provider can do."""


@dataclass(frozen=True, slots=True)
class RequestKind:
    """One kind of request: how often, how long, and by when.

    Attributes:
        in_twenty: how many of twenty requests are of it.
        low, high: output tokens, drawn evenly between them.
        deadline_s: from submission to the last token.

    """

    in_twenty: int
    low: int
    high: int
    deadline_s: float


KINDS = (
    RequestKind(9, 8, 60, 0.25),
    RequestKind(5, 70, 250, 0.5),
    RequestKind(4, 280, 1000, 1.4),
    RequestKind(2, 1100, 2400, 3.6),
)
"""A balanced mix: short questions beside a few long reports (ours, version 1)."""

_CAPS = (64, 256, 1024, 2560)


@dataclass(frozen=True, slots=True)
class Shot:
    """One request of the plan.

    Attributes:
        at_s: when it is sent, from the arm's start.
        output_tokens: how long its reply will be; only the provider is told.
        max_tokens: what its caller allows: the size class that it knows it is in.
        deadline_s: from submission.
        stream: whether the reply is streamed.
        prompt: what is asked.
        model: of whom.
        route: the caller's name for this kind of call, for the predictor; empty for none.

    """

    at_s: float
    output_tokens: int
    max_tokens: int | None
    deadline_s: float
    stream: bool
    prompt: str = "Tell me of water, wheels and gates."
    model: str = "demo"
    route: str = ""

    @property
    def bucket(self) -> str:
        """The paper's bucket of its true length."""
        return bucket_of(self.output_tokens)

    @property
    def service_s(self) -> float:
        """How long the provider works on it, alone in a slot."""
        return FIRST_TOKEN_S + self.output_tokens / TOKENS_PER_S


def plan(seconds: float, *, seed: int) -> list[Shot]:
    """Return a load of `LOAD` times the provider's capacity, in order of time.

    Gaps are exponential. Every twenty requests hold the whole mix, and time is stretched so that
    the work that was really drawn fills `seconds` at exactly that load: a demo should not hang
    on the luck of a seed.
    """
    chance = random.Random(seed)
    room_s = SLOTS * seconds * LOAD
    drawn: list[tuple[float, RequestKind, int]] = []
    at = work_s = 0.0
    while work_s < room_s:
        mix = [kind for kind in KINDS for _ in range(kind.in_twenty)]
        chance.shuffle(mix)
        for kind in mix:
            tokens = chance.randint(kind.low, kind.high)
            drawn.append((at, kind, tokens))
            at += chance.expovariate(1.0)
            work_s += FIRST_TOKEN_S + tokens / TOKENS_PER_S
    stretch = work_s / (SLOTS * LOAD) / at
    return [
        Shot(when * stretch, tokens, _CAPS[KINDS.index(kind)], kind.deadline_s, number % 3 == 0)
        for number, (when, kind, tokens) in enumerate(drawn)
    ]


TAIL_S = 12.0
"""How long after the last arrival replies are waited for; what is not there by then is given up."""


@dataclass(slots=True)
class ArmResult:
    """What one arm gave.

    Attributes:
        name: of the arm.
        records: one per request, in the plan's order.
        queue_ms: what the sidecar said it held requests back, where it said so.

    """

    name: str
    records: list[RequestRecord]
    queue_ms: list[float] = field(default_factory=list)


async def play(
    name: str,
    url: str,
    shots: list[Shot],
    *,
    progress: Callable[[RequestRecord], None],
    oracle: bool = False,
) -> ArmResult:
    """Send every shot at its time; return when all have ended.

    Args:
        name: of the arm.
        url: what the clients call, without /v1.
        shots: in order of time.
        progress: called with each record.
        oracle: the sidecar is told each reply's length beforehand, which no caller knows.

    """
    result = ArmResult(name, [])
    # Without retries of its own: each request counts once, as it was answered first.
    async with openai.AsyncOpenAI(
        base_url=url + "/v1", api_key="demo", max_retries=0, timeout=120.0
    ) as client:
        await client.models.list()  # the first connection is not the load's to pay
        begun = time.monotonic()

        async def one(shot: Shot) -> RequestRecord:
            await asyncio.sleep(max(0.0, begun + shot.at_s - time.monotonic()))
            arrived = time.monotonic() - begun
            outcome = await _send(client, shot, result, oracle=oracle)
            ended = time.monotonic() - begun
            record = RequestRecord(shot.bucket, arrived, arrived + shot.deadline_s, ended, outcome)
            progress(record)
            return record

        tasks = [asyncio.create_task(one(shot)) for shot in shots]
        try:
            _, late = await asyncio.wait(tasks, timeout=shots[-1].at_s + TAIL_S)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shot, task in zip(shots, tasks, strict=True):
            if task in late or task.cancelled():
                ended = shots[-1].at_s + TAIL_S
                due = shot.at_s + shot.deadline_s
                result.records.append(
                    RequestRecord(shot.bucket, shot.at_s, due, ended, RequestOutcome.CANCELLED)
                )
            else:
                result.records.append(task.result())
    return result


async def _send(
    client: openai.AsyncOpenAI, shot: Shot, result: ArmResult, *, oracle: bool
) -> RequestOutcome:
    try:
        raw = await client.chat.completions.with_raw_response.create(
            model=shot.model,
            messages=[{"role": "user", "content": shot.prompt}],
            max_tokens=openai.omit if shot.max_tokens is None else shot.max_tokens,
            stream=shot.stream,
            stream_options={"include_usage": True} if shot.stream else None,
            extra_headers=_headers(shot, oracle=oracle),
        )
        waited = raw.headers.get("x-penstock-queue-ms")
        if waited is not None:
            result.queue_ms.append(float(waited))
        reply = raw.parse()
        if isinstance(reply, openai.AsyncStream):
            async for _ in reply:
                pass
    except openai.APIStatusError as error:
        refused = error.response.headers.get("x-penstock-decision", "").startswith("refused")
        return RequestOutcome.SHED if refused else RequestOutcome.FAILED
    except openai.APIError:
        return RequestOutcome.FAILED
    return RequestOutcome.COMPLETED


def _headers(shot: Shot, *, oracle: bool) -> dict[str, str]:
    """Return the wishes for the sidecar, and the length that only the provider looks at."""
    headers = {
        "x-mock-output-tokens": str(shot.output_tokens),
        "x-penstock-deadline-ms": str(round(shot.deadline_s * 1000)),
    }
    if shot.route:
        headers["x-penstock-route"] = shot.route
    if oracle:
        headers["x-penstock-tokens"] = str(shot.output_tokens)
    return headers
