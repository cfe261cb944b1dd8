"""The demo from its first word to its report."""

import contextlib
import functools
import math
import random
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

import tomlkit
from rich.console import Console
from rich.progress import Progress, TaskID

from penstock.core.model import bucket_of
from penstock.experiments.demo import report
from penstock.experiments.demo.arm import (
    FIRST_TOKEN_S,
    KINDS,
    LOAD,
    SLOTS,
    TOKENS_PER_S,
    ArmResult,
    Shot,
    plan,
    play,
)
from penstock.experiments.demo.verdict import (
    DemoVerdict,
    KeptShare,
    bars,
    conclude,
    greet,
    judge,
    table,
)
from penstock.experiments.live import START_LIMIT_S, LiveError, child, sidecar_config
from penstock.experiments.measure import Table, overlay
from penstock.metrics import (
    BUCKETS,
    RequestOutcome,
    RequestRecord,
    RunMetrics,
    measure,
    nearest_rank,
)
from penstock.predict.train.datasets import RecordedReply, read_replies
from penstock.runtime.uninterrupted import run_loop

COMMON: Table = {
    "admin": {"enabled": True, "port": 0},
    "anonymous": {"may_ask": ["*"]},
    "estimates": {"trust_max_tokens": True},
}
NO_PREDICTOR: Table = {"predictor": {"kind": "off"}}
"""The demo's own prompts say nothing about lengths; its callers' `max_tokens` does."""
FIFO: Table = {
    "scheduler": {
        "allocation": {"kind": "fifo"},
        "ordering": {"kind": "fifo"},
        "overload": {"kind": "always_admit"},
    },
    **NO_PREDICTOR,
}


@contextlib.contextmanager
def provider(seed: int) -> Iterator[str]:
    """Run the black-box provider; yields its URL."""
    options = (f"slots={SLOTS}", f"tokens_per_s={TOKENS_PER_S}", f"ttft_s={FIRST_TOKEN_S}")
    pairs = [part for option in options for part in ("--set", option)]
    with child("mock", "--port", "0", "--model", "slots", "--seed", str(seed), *pairs) as (url,):
        yield url


@contextlib.contextmanager
def sidecar(url: str, more: Table, folder: Path) -> Iterator[str]:
    """Run a sidecar in front of a provider; yields its URL once its predictor, if any, is in.

    Args:
        url: the provider's, without /v1.
        more: tables of penstock.toml that are laid over what every arm has.
        folder: for its configuration.

    """
    config = folder / "penstock.toml"
    tables = overlay(overlay(sidecar_config(url, {}), COMMON), more)
    config.write_text(tomlkit.dumps(tables), encoding="utf-8")
    with child("serve", "--config", str(config), addresses=2) as (own_url, admin_url):
        if more.get("predictor", {}).get("kind") == "online":
            _wait_for_predictor(admin_url)
        yield own_url


def _wait_for_predictor(admin_url: str) -> None:
    """Return once the predictor, which loads beside the traffic, gives the estimates."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        with urllib.request.urlopen(f"{admin_url}/metrics", timeout=START_LIMIT_S) as page:  # noqa: S310 - our own child on loopback
            if b"penstock_predictor_predicted" in page.read():
                return
        time.sleep(0.05)
    raise LiveError(f"the sidecar's predictor was not there within {START_LIMIT_S:g} s")


SAMPLE = "sample"
_LEAST_ROOM = 1.5
_DEADLINE_S = dict(zip(BUCKETS, (kind.deadline_s for kind in KINDS), strict=True))


def replies_of(name: str) -> list[RecordedReply]:
    """Return the rows of a file, or of the sample that comes with penstock.

    Raises:
        ConfigError: a row lacks a prompt or a count, or the file is neither parquet nor JSONL.
        OSError: it cannot be read.

    """
    if name != SAMPLE:
        return read_replies(Path(name))
    with resources.as_file(
        resources.files("penstock.experiments.demo") / "prompts" / "prompts.jsonl"
    ) as path:
        return read_replies(path)


def plan_of_replies(replies: list[RecordedReply], seconds: float, *, seed: int) -> list[Shot]:
    """Return a load of `LOAD` times the provider's capacity, in order of time.

    Rows are drawn without repetition for as long as there are any. A caller does not know how
    long its reply will be, only what kind of call it makes: so all calls of a route have one
    deadline, that of the size in which nine of ten of its replies are. The scheduler is told no
    length, and cannot read one from a deadline, but for the few replies that could not meet it
    even alone: these have half as much again as they need.
    """
    chance = random.Random(seed)
    deadline_s = _deadlines(replies)
    rows: list[RecordedReply] = []
    drawn: list[tuple[float, RecordedReply]] = []
    at = work_s = 0.0
    while work_s < SLOTS * seconds * LOAD:
        if not rows:
            rows = list(replies)
            chance.shuffle(rows)
        reply = rows.pop()
        drawn.append((at, reply))
        at += chance.expovariate(1.0)
        work_s += _service_s(reply)
    stretch = work_s / (SLOTS * LOAD) / at
    return [
        Shot(
            at_s=when * stretch,
            output_tokens=max(1, round(reply.output_tokens)),
            max_tokens=_cap(reply),
            deadline_s=max(deadline_s[reply.call.route], _LEAST_ROOM * _service_s(reply)),
            stream=number % 3 == 0,
            prompt=reply.prompt,
            model=reply.call.model or "demo",
            route=reply.call.route,
        )
        for number, (when, reply) in enumerate(drawn)
    ]


def _deadlines(replies: Iterable[RecordedReply]) -> dict[str, float]:
    lengths: dict[str, list[float]] = defaultdict(list)
    for reply in replies:
        lengths[reply.call.route].append(reply.output_tokens)
    return {
        route: _DEADLINE_S[bucket_of(nearest_rank(sorted(tokens), 90) or 0.0)]
        for route, tokens in lengths.items()
    }


def _service_s(reply: RecordedReply) -> float:
    return FIRST_TOKEN_S + reply.output_tokens / TOKENS_PER_S


def _cap(reply: RecordedReply) -> int | None:
    cap = reply.call.cap_tokens
    return None if math.isinf(cap) else int(cap)


ARMS: dict[str, Table | None] = {"direct": None, "FIFO": FIFO, "penstock": NO_PREDICTOR}
"""Each arm with what its sidecar's configuration adds; None for no sidecar."""

ORACLE = "oracle"
"""penstock, told every reply's length by its callers: what no prediction can better."""


def run(
    *,
    seconds: float,
    seed: int,
    out: Path,
    console: Console,
    prompts: str | None = None,
    prior: str = "shipped",
) -> DemoVerdict | KeptShare:
    """Play every arm, print the table, write the report; return the verdict.

    Args:
        seconds: how long each load lasts.
        seed: of the load.
        out: the report's place.
        console: where to talk.
        prompts: a file of real prompts and lengths, `sample` for penstock's own, None for none.
        prior: what the predictor starts from, where there are prompts.

    Raises:
        DemoError: a child did not start.
        ConfigError: the file of prompts cannot be used.
        OSError: the report cannot be written, or the prompts not read.

    """
    ways = dict(ARMS)
    if prompts is None:
        shots = plan(seconds, seed=seed)
    else:
        shots = plan_of_replies(replies_of(prompts), seconds, seed=seed)
        ways["penstock"] = {"predictor": {"kind": "online", "prior": prior}}
        ways[ORACLE] = NO_PREDICTOR
    greet(console, shots, list(ways))
    arms: list[ArmResult] = []
    with bars(console) as progress:
        for name, config in ways.items():
            count = _ArmBar(progress, name, len(shots)).count
            with _way(config, seed) as url:
                oracle = name == ORACLE
                arms.append(
                    run_loop(
                        functools.partial(play, name, url, shots, progress=count, oracle=oracle)
                    )
                )
    results: dict[str, RunMetrics] = {arm.name: measure(arm.records) for arm in arms}
    verdict = (
        judge(results["direct"], results["penstock"], seconds=seconds)
        if prompts is None
        else KeptShare.of(results["penstock"], results[ORACLE], seconds=seconds)
    )
    console.print()
    console.print(table(results))
    conclude(console, verdict)
    report.write(out, arms, results, verdict)
    console.print(f"\nReport with plots: {out.resolve()}", soft_wrap=True)
    return verdict


@contextlib.contextmanager
def _way(config: Table | None, seed: int) -> Iterator[str]:
    """Run a fresh provider, and a sidecar if the arm has one; yields what clients call."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(provider(seed))
        if config is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-demo-"))
            url = stack.enter_context(sidecar(url, config, Path(folder)))
        yield url


class _ArmBar:
    """Moves one arm's bar."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task(name, total=total, in_time=0, refused=0)
        self._in_time = 0
        self._refused = 0

    def count(self, record: RequestRecord) -> None:
        self._in_time += record.in_time
        self._refused += record.outcome is RequestOutcome.SHED
        self._progress.update(self._task, advance=1, in_time=self._in_time, refused=self._refused)
