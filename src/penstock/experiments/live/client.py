"""An open-loop client: sends a workload at its own times and notes what came back when."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from penstock.experiments.children import LiveError
from penstock.metrics import RequestOutcome, RequestRecord
from penstock.sim.workload import Load, Workload

PATIENCE_S = 300.0
"""Longer than any scenario here keeps a caller waiting: whoever waits longer waits for ever."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one request.

    Attributes:
        record: for the metrics.
        status: HTTP.
        decision: what the sidecar says that it did; empty where there was none.

    """

    record: RequestRecord
    status: int
    decision: str


async def send_workload(
    url: str, workload: Workload, progress: Callable[[int, int], None], *, stream_one_in: int = 0
) -> list[Answered]:
    """Send every request when it is due and return what became of each, in order of arrival.

    Open loop: a slow reply delays nobody, as with callers who know nothing of each other.

    Args:
        url: the sidecar's or the provider's, without /v1.
        workload: what to send.
        progress: called with (done, of how many) after each reply.
        stream_one_in: every so manieth reply is streamed; 0 for none.

    Raises:
        LiveError: a request had no answer at all.

    """
    connector = aiohttp.TCPConnector(limit=0)
    # Its own limit of 30 s for a connection would end a run for a moment of a busy machine.
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S, sock_connect=PATIENCE_S)
    done = 0
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        start = time.monotonic()

        async def one(load: Load, *, stream: bool) -> Answered:
            nonlocal done
            answered = await _send(session, f"{url}/v1/chat/completions", load, start, stream)
            done += 1
            progress(done, len(workload.loads))
            return answered

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        one(load, stream=stream_one_in > 0 and number % stream_one_in == 0)
                    )
                    for number, load in enumerate(workload.loads)
                ]
        except ExceptionGroup as failed:  # the first failure ends the run and cancels the rest
            raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _send(
    session: aiohttp.ClientSession, url: str, load: Load, start: float, stream: bool
) -> Answered:
    request = load.request
    await asyncio.sleep(max(0.0, start + request.arrived_at - time.monotonic()))
    sent_at = time.monotonic() - start
    estimate = request.estimate
    headers = {
        "x-mock-output-tokens": str(load.output_tokens),
        "x-penstock-deadline-ms": f"{1000 * (request.deadline - request.arrived_at):.3f}",
        "x-penstock-tokens": f"{estimate.p50_tokens:.3f},{estimate.p90_tokens:.3f}",
    }
    body = {
        "model": "mock",
        "messages": [{"role": "user", "content": "as long as the header says"}],
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    }
    try:
        async with session.post(url, json=body, headers=headers) as reply:
            await reply.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise LiveError(
            f"request {request.id}, sent at {sent_at:.1f} s, had no answer "
            f"({type(error).__name__}): did the sidecar or the mock end?"
        ) from error
    ended_at = time.monotonic() - start
    decision = reply.headers.get("x-penstock-decision", "")
    deadline = sent_at + load.deadline - request.arrived_at
    return Answered(
        RequestRecord(load.bucket, sent_at, deadline, ended_at, _outcome(reply.status, decision)),
        reply.status,
        decision,
    )


def _outcome(status: int, decision: str) -> RequestOutcome:
    if status == 200:
        return RequestOutcome.COMPLETED
    # What an upstream refused for good is relayed; all other refusals are the scheduler's.
    refused = decision.startswith("refused:") and decision != "refused:upstream"
    return RequestOutcome.SHED if refused else RequestOutcome.FAILED
