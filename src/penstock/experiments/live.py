"""The same scenario live and simulated, side by side.

The client is open-loop: it sends a workload at its own times and notes what came back when.
"""

import asyncio
import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import aiohttp
import tomlkit

from penstock.errors import PenstockError
from penstock.experiments.measure import (
    RunOutcome,
    SimulationJob,
    Table,
    outcome_of_records,
    overlay,
)
from penstock.experiments.tables import SHOWN, Column, number
from penstock.experiments.tables import ResultTable as Shown
from penstock.metrics import RequestOutcome, RequestRecord
from penstock.runtime.uninterrupted import UNINTERRUPTED, run_loop
from penstock.sim.scenario import DEFAULT_CLASSES, read_scenario
from penstock.sim.workload import Load, Workload

START_LIMIT_S = 30.0
END_LIMIT_S = 10.0
_URL = re.compile(rb"http://127\.0\.0\.1:\d+")


class LiveError(PenstockError):
    """A process did not start or did not answer; the text says which, and what it said."""


@contextlib.contextmanager
def child(command: str, *arguments: str, addresses: int = 1) -> Iterator[list[str]]:
    """Run a command of penstock; yields the addresses on which it says that it listens.

    Raises:
        LiveError: it ended, or said too few of them in time.

    """
    process: subprocess.Popen[bytes] | None = None
    with tempfile.TemporaryFile() as output:
        try:
            with UNINTERRUPTED:  # a process that started is one that will be ended
                process = subprocess.Popen(
                    [sys.executable, "-m", "penstock.cli.main", command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    # Ctrl-C is for us: we end the children in order.
                    start_new_session=True,
                )
            yield _urls_of(process, command, output, addresses)
        finally:
            if process is not None:
                process.terminate()
                try:
                    process.wait(END_LIMIT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _urls_of(
    process: "subprocess.Popen[bytes]", command: str, output: IO[bytes], addresses: int
) -> list[str]:
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        output.seek(0)
        text = output.read()
        # Whole lines only: a port must not be read before its last digit is there.
        found = _URL.findall(text[: text.rfind(b"\n") + 1])
        if len(found) >= addresses:
            return [url.decode() for url in found[:addresses]]
        if process.poll() is not None:
            raise LiveError(f"penstock {command} did not start: {text.decode(errors='replace')}")
        time.sleep(0.02)
    raise LiveError(f"penstock {command} said no address within {START_LIMIT_S:g} s")


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


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the two listen, without /v1."""

    sidecar: str
    mock: str


@asynccontextmanager
async def sidecar_and_mock(
    provider: Table, policy: Table, folder: Path, *, more: Table | None = None
) -> AsyncIterator[Urls]:
    """Yield both URLs; both processes end with the block.

    Args:
        provider: the mock's, as in a scenario.
        policy: the sidecar's stack and limits, as in a scenario.
        folder: for their configuration files.
        more: tables of penstock.toml that are laid over what `sidecar_config` says.

    Raises:
        LiveError: one of them did not start.

    """
    mock_file, sidecar_file = folder / "mock.toml", folder / "penstock.toml"
    mock_file.write_text(tomlkit.dumps({"provider": provider}), "utf-8")
    stack = ExitStack()
    try:
        (mock_url,) = await asyncio.to_thread(
            stack.enter_context, child("mock", "--port", "0", "--config", str(mock_file))
        )
        config = overlay(sidecar_config(mock_url, policy), more or {})
        sidecar_file.write_text(tomlkit.dumps(config), "utf-8")
        (sidecar_url,) = await asyncio.to_thread(
            stack.enter_context, child("serve", "--config", str(sidecar_file))
        )
        yield Urls(sidecar_url, mock_url)
    finally:
        await asyncio.to_thread(stack.close)


def sidecar_config(mock_url: str, policy: Table) -> dict[str, Any]:
    """Return penstock.toml as tables.

    Callers state their deadlines and what they know of their replies' lengths, as the
    simulation's do; for the rest the sidecar is as its defaults make it.
    """
    upstream = {"base_url": f"{mock_url}/v1", "auth": "none", "limits": policy.get("limits", {})}
    return {
        "server": {"port": 0, "drain_grace_s": 1.0},
        "admin": {"enabled": False},
        "anonymous": {"shortest_deadline_s": 0.001, "may_state_tokens": True},
        "upstreams": [upstream],
        "classes": [
            {"name": plan.name, "weight": plan.weight, "buckets": list(plan.buckets)}
            for plan in DEFAULT_CLASSES
        ],
        "scheduler": {
            layer: {"kind": spec} if isinstance(spec, str) else spec
            for layer, spec in policy.items()
            if layer != "limits"
        },
    }


Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """One policy's two runs."""

    policy: str
    live: RunOutcome
    simulated: RunOutcome

    def agree(self, limits: Table) -> bool:
        """Return whether the two are as near each other as live.toml asks."""
        satisfied, p95_s = "deadline_satisfaction", "short_p95_s"
        live, simulated = self.live.figures, self.simulated.figures
        lives_s, simulated_s = live[p95_s], simulated[p95_s]
        if lives_s is None or simulated_s is None:
            return False
        apart = abs((live[satisfied] or 0.0) - (simulated[satisfied] or 0.0))
        allowed_s = max(
            limits["short_p95_difference_s"], limits["short_p95_difference_share"] * simulated_s
        )
        # A thousandth of slack: 2 points of 200 requests are 4 requests, not 3.99.
        return bool(
            apart <= limits["deadline_difference_max"] + 1e-9
            and abs(lives_s - simulated_s) <= allowed_s
        )


def run_live(settings: Table, policies: Sequence[str], progress: Progress) -> list[RunOutcome]:
    """Run policies of live.toml in real time, each through a sidecar and a mock of its own.

    All at once: the load of one is nothing to a machine, and the time it takes is the scenario's.
    """

    async def together() -> list[RunOutcome]:
        return list(
            await asyncio.gather(*(_live(settings, policy, progress) for policy in policies))
        )

    return run_loop(together)


async def _live(settings: Table, policy: str, progress: Progress) -> RunOutcome:

    job = live_job(settings, policy)
    scenario = read_scenario(job.scenario)
    workload = scenario.workload.build(job.seed, scenario.classes)
    with tempfile.TemporaryDirectory(prefix="penstock-live-") as folder:
        async with sidecar_and_mock(job.scenario["provider"], job.policy, Path(folder)) as urls:
            label = f"live: {policy}"
            answered = await send_workload(
                urls.sidecar, workload, lambda done, total: progress(label, done, total)
            )
    return outcome_of_records([each.record for each in answered])


def live_job(settings: Table, policy: str) -> SimulationJob:
    """Return the job that a policy of live.toml simulates."""
    return SimulationJob(settings["scenario"], settings["policies"][policy], int(settings["seed"]))


def live_table(pairs: tuple[Pair, ...], limits: Table) -> Shown:
    """Return both runs of each policy, one under the other."""
    rows, cells, groups = [], [], []
    for pair in pairs:
        agree = pair.agree(limits)
        for kind, outcome in (("live", pair.live), ("simulated", pair.simulated)):
            rows.append(
                {"policy": pair.policy, "run": kind, "agree": agree} | dict(outcome.figures)
            )
            shown = [number(outcome.figures[name] or 0.0) for name, _ in SHOWN]
            cells.append((kind, *shown, "yes" if agree else "NO"))
            groups.append(f"{pair.policy}")
    columns = (
        Column("run", "", text=True),
        *(Column(name, heading) for name, heading in SHOWN),
        Column("agree", "agree", text=True),
    )
    return Shown("live", columns, tuple(rows), tuple(cells), tuple(groups))
