"""An open-loop client: sends a workload at its own times and notes what came back when."""

import asyncio
import time
from collections.abc import Callable

import aiohttp

from penstock.experiments.live.processes import LiveError, model_of
from penstock.metrics import Outcome, Record
from penstock.sim.workload import Load, Workload

PATIENCE_S = 300.0
"""Longer than any scenario here keeps a caller waiting: whoever waits longer waits for ever."""

_REFUSED = (429, 503)
"""How the sidecar answers what its scheduler will not send; the mock is told of no fault."""


async def send_workload(
    url: str, workload: Workload, told: Callable[[int, int], None]
) -> list[Record]:
    """Send every request when it is due and return what became of each, in order of arrival.

    Open loop: a slow reply delays nobody, as with callers who know nothing of each other.

    Args:
        url: the sidecar's, without /v1.
        workload: what to send.
        told: called with (done, of how many) after each reply.

    Raises:
        LiveError: a request had no answer at all.

    """
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    done = 0
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        start = time.monotonic()

        async def one(load: Load) -> Record:
            nonlocal done
            record = await _send(session, f"{url}/v1/chat/completions", load, start)
            done += 1
            told(done, len(workload.loads))
            return record

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(load)) for load in workload.loads]
        except ExceptionGroup as failed:  # the first failure ends the run and cancels the rest
            raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _send(session: aiohttp.ClientSession, url: str, load: Load, start: float) -> Record:
    request = load.request
    await asyncio.sleep(max(0.0, start + request.arrived_at - time.monotonic()))
    sent_at = time.monotonic() - start
    headers = {
        "x-mock-output-tokens": str(load.output_tokens),
        "x-penstock-deadline-ms": f"{1000 * (request.deadline - request.arrived_at):.3f}",
    }
    body = {
        "model": model_of(load.bucket),
        "messages": [{"role": "user", "content": "as long as the header says"}],
    }
    try:
        async with session.post(url, json=body, headers=headers) as reply:
            await reply.read()
            status = reply.status
    except (aiohttp.ClientError, TimeoutError) as error:
        raise LiveError(
            f"request {request.id}, sent at {sent_at:.1f} s, had no answer "
            f"({type(error).__name__}): did the sidecar or the mock end?"
        ) from error
    ended_at = time.monotonic() - start
    outcome = (
        Outcome.COMPLETED
        if status == 200
        else Outcome.SHED
        if status in _REFUSED
        else Outcome.FAILED
    )
    deadline = sent_at + load.deadline - request.arrived_at
    return Record(load.bucket, sent_at, deadline, ended_at, outcome)
