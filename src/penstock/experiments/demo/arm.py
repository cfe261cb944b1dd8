"""Plays the plan against one base URL with the openai SDK, and notes how each call ended."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import openai

from penstock.experiments.demo.workload import Shot
from penstock.metrics import RequestOutcome, RequestRecord

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
