"""How well estimates held: the figures and plots of `penstock predict evaluate` and `report`."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from penstock.errors import ConfigError
from penstock.predict.features.call import CallFeatures
from penstock.predict.online.predictor import OnlinePredictor, state_bytes
from penstock.predict.online.stats import bucket_numbers
from penstock.predict.train.datasets import RecordedReply


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures over some replies; None where they are not defined (no pair, no variance).

    Attributes:
        n: replies.
        bucket_accuracy: share whose p50 lies in the bucket of the real length.
        pair_ranking: over pairs of different length, share that p50 orders right; ties half.
        spearman: rank correlation of p50 and length.
        median_multiplicative_error: exp of the median of |log p50 - log length|.
        pinball_p50_log: mean quantile loss of log p50 at 0.5.
        pinball_p90_log: mean quantile loss of log p90 at 0.9.
        p90_coverage: share of lengths that are at most p90.

    """

    n: int
    bucket_accuracy: float | None
    pair_ranking: float | None
    spearman: float | None
    median_multiplicative_error: float | None
    pinball_p50_log: float | None
    pinball_p90_log: float | None
    p90_coverage: float | None

    def as_dict(self) -> dict[str, int | float | None]:
        """Return the figures by name."""
        return asdict(self)


def score(
    lengths: NDArray[np.float64], p50: NDArray[np.float64], p90: NDArray[np.float64]
) -> Scores:
    """Return the scores of estimates, in tokens. Errors are on lengths of at least 1."""
    if lengths.size == 0:
        return Scores(0, None, None, None, None, None, None, None)
    lengths = np.maximum(1.0, lengths)
    gap50 = np.log(lengths) - np.log(p50)
    gap90 = np.log(lengths) - np.log(p90)
    right = bucket_numbers(lengths) == bucket_numbers(p50)
    return Scores(
        n=int(lengths.size),
        bucket_accuracy=float(right.mean()),
        pair_ranking=pair_ranking(lengths, p50),
        spearman=spearman(lengths, p50),
        median_multiplicative_error=math.exp(float(np.median(np.abs(gap50)))),
        pinball_p50_log=float(np.maximum(0.5 * gap50, -0.5 * gap50).mean()),
        pinball_p90_log=float(np.maximum(0.9 * gap90, -0.1 * gap90).mean()),
        p90_coverage=float((lengths <= p90).mean()),
    )


def pair_ranking(lengths: NDArray[np.float64], p50: NDArray[np.float64]) -> float | None:
    """Return the share of pairs with different lengths that p50 orders right, ties half.

    Source:
        Somers' D of p50 given the length, from Kendall's tau-b: Somers, American Sociological
        Review 27(6), 1962.

    """
    pairs, differing_p50 = _pairs_differing(lengths), _pairs_differing(p50)
    if pairs == 0:
        return None
    if differing_p50 == 0:
        return 0.5
    tau = float(kendalltau(lengths, p50).statistic)
    return 0.5 + 0.5 * tau * math.sqrt(differing_p50 / pairs)


def _pairs_differing(values: NDArray[np.float64]) -> int:
    sizes = np.unique(values, return_counts=True)[1]
    return int(values.size * (values.size - 1) - (sizes * (sizes - 1)).sum()) // 2


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Return the rank correlation, ties at their mean rank; None without variance."""
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return None
    return float(spearmanr(a, b).statistic)


_STRETCH = 200  # replies a point, in the plots over time
_ROUTES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Settled:
    """An estimate and what became of it.

    Attributes:
        p50_tokens, p90_tokens, source: the estimate.
        output_tokens: the real count.
        group: its route if the log has one, else its traffic class.

    """

    p50_tokens: float
    p90_tokens: float
    source: str
    output_tokens: float
    group: str


def summarise(settled: Sequence[Settled]) -> dict[str, Any]:
    """Return the figures of all estimates, by group and by source."""
    return {
        **_figures(settled),
        "routes": {
            name: _figures(rows) for name, rows in _grouped(settled, "group")[:_ROUTES_SHOWN]
        },
        "sources": {name: _figures(rows) for name, rows in _grouped(settled, "source")},
    }


def plot_report(settled: Sequence[Settled], out: Path) -> None:
    """Draw calibration, error, coverage over time and estimate against truth to an image.

    Raises:
        ConfigError: matplotlib is not installed.

    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "plots need matplotlib; install penstock[experiments], or use --json alone"
        ) from error
    figure = Figure(figsize=(11, 8), layout="constrained")
    (truth, calibration), (errors, stretches) = figure.subplots(2, 2)
    p50, p90, tokens = _columns(settled)
    tokens = np.maximum(1.0, tokens)
    truth.loglog(p50, tokens, ".", markersize=2, alpha=0.4)
    ends = [1.0, float(max(p50.max(), tokens.max()))]
    truth.loglog(ends, ends, "k-", linewidth=0.8)
    truth.set(xlabel="p50 tokens", ylabel="real tokens", title="Estimate and truth")
    ratio = np.sort(np.log(tokens / p50) / np.log(np.maximum(p90 / p50, 1.0001)))
    calibration.plot(ratio, np.linspace(0, 1, ratio.size))
    calibration.plot([0, 1], [0.5, 0.9], "ko", markersize=5)
    calibration.set(
        xlim=(-3, 3), xlabel="real length (p50 = 0, p90 = 1)", ylabel="share of replies",
        title="Calibration: the curve should pass through both dots",
    )  # fmt: skip
    errors.hist(np.clip(np.log2(tokens / p50), -4, 4), bins=64, range=(-4, 4))
    errors.set(xlabel="log2(real / p50)", ylabel="replies", title="Errors of p50")
    starts = range(0, len(settled), _STRETCH)
    parts = [_figures(settled[at : at + _STRETCH]) for at in starts]
    for key, label in (("p90_coverage", "p90 coverage"), ("bucket_accuracy", "bucket accuracy")):
        stretches.plot(list(starts), [part[key] for part in parts], label=label)
    stretches.axhline(0.9, color="k", linewidth=0.5)
    stretches.set(ylim=(0, 1), xlabel="replies", title=f"Per {_STRETCH} replies")
    stretches.legend()
    figure.savefig(out, dpi=110)


def _columns(settled: Sequence[Settled]) -> tuple[Any, Any, Any]:
    rows = np.array([(s.p50_tokens, s.p90_tokens, s.output_tokens) for s in settled], float)
    return rows[:, 0], rows[:, 1], rows[:, 2]


def _figures(settled: Sequence[Settled]) -> dict[str, Any]:
    p50, p90, tokens = _columns(settled)
    return dict(score(tokens, p50, p90).as_dict())


def _grouped(settled: Iterable[Settled], field: str) -> list[tuple[str, list[Settled]]]:
    """Return groups by name, the largest first."""
    groups: dict[str, list[Settled]] = defaultdict(list)
    for item in settled:
        groups[getattr(item, field)].append(item)
    return sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))


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
