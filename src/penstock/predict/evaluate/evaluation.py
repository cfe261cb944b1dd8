"""The evaluation behind `penstock predict evaluate`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from penstock.predict.evaluate.scores import score
from penstock.predict.features.call import CallFeatures
from penstock.predict.online.predictor import OnlinePredictor
from penstock.predict.online.state import state_bytes
from penstock.predict.train.datasets import RecordedReply

STRETCHES: tuple[tuple[str, int, int], ...] = (
    ("0-50", 0, 50),
    ("50-100", 50, 100),
    ("100-250", 100, 250),
    ("250-500", 250, 500),
    ("500-2000", 500, 2000),
    ("later", 2000, 1 << 62),
)
"""Stretches of a stream: name, first reply, and the first one no longer in it."""


def evaluate(
    predictor: OnlinePredictor,
    replies: Sequence[RecordedReply],
    *,
    online: bool,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] = lambda _done: None,
) -> dict[str, Any]:
    """Return the figures of a predictor over replies, as the JSON report has them.

    Args:
        predictor: asked for every reply in order; learns only if `online`.
        replies: what really came.
        online: predict, then learn, reply by reply.
        clock: for the latency of a prediction; features from the prompt are part of it.
        progress: told after each reply that one more is done.

    """
    estimates, took = [], []
    predictor.predict(CallFeatures.from_prompt("warm up"))  # the first prediction takes longer
    for reply in replies:
        begun = clock()
        estimates.append(predictor.predict(reply.call))
        took.append(reply.read_s + clock() - begun)
        if online:
            predictor.learn(reply.call, round(reply.output_tokens))
        progress(1)
    lengths = np.array([reply.output_tokens for reply in replies])
    p50 = np.array([estimate.p50_tokens for estimate in estimates])
    p90 = np.array([estimate.p90_tokens for estimate in estimates])

    def figures(rows: Sequence[int]) -> dict[str, Any]:
        chosen = np.array(rows, np.int64)
        return dict(score(lengths[chosen], p50[chosen], p90[chosen]).as_dict())

    report = figures(range(len(replies)))
    report["latency_p50_us"] = float(np.median(took)) * 1e6
    report["state_bytes"] = len(state_bytes(predictor.model, source=predictor.source))
    report["routes"] = {k: figures(v) for k, v in _by(replies, lambda r: r.call.route).items()}
    report["models"] = {k: figures(v) for k, v in _by(replies, lambda r: r.call.model).items()}
    if online:
        report["stretches"] = {
            name: figures(range(first, min(end, len(replies))))
            for name, first, end in STRETCHES
            if first < len(replies)
        }
    return report


def _by(
    replies: Sequence[RecordedReply], key: Callable[[RecordedReply], str]
) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for number, reply in enumerate(replies):
        rows[key(reply)].append(number)
    return dict(sorted(rows.items()))
