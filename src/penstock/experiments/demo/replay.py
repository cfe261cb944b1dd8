"""Real prompts as the demo's load: the provider replies as long as the recorded reply was."""

import math
import random
from collections import defaultdict
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from penstock.core.model import bucket_of
from penstock.experiments.demo.workload import (
    FIRST_TOKEN_S,
    KINDS,
    LOAD,
    SLOTS,
    TOKENS_PER_S,
    Shot,
)
from penstock.metrics import BUCKETS, nearest_rank
from penstock.predict.train.datasets import RecordedReply, read_replies

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
