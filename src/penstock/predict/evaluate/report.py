"""Plots and figures of how well estimates held."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penstock.errors import ConfigError
from penstock.predict.evaluate.scores import score

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
        "routes": {name: _figures(rows) for name, rows in _by(settled, "group")[:_ROUTES_SHOWN]},
        "sources": {name: _figures(rows) for name, rows in _by(settled, "source")},
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


def _by(settled: Iterable[Settled], field: str) -> list[tuple[str, list[Settled]]]:
    """Return groups by name, the largest first."""
    groups: dict[str, list[Settled]] = defaultdict(list)
    for item in settled:
        groups[getattr(item, field)].append(item)
    return sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
