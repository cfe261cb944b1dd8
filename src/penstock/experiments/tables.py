"""Tables for people and for JSON: one row a regime and variant.

Among them: where another policy is better than the one that we recommend. No table should have to
be read for what its author would rather not say.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from penstock.experiments.results import Cell, Results, mean_of
from penstock.metrics import BUCKETS

SHOWN = (
    ("short_p95_s", "short P95, s"),
    ("p95_s", "P95, s"),
    ("makespan_s", "makespan, s"),
    ("completion_rate", "completion"),
    ("deadline_satisfaction", "deadlines met"),
    ("useful_goodput_per_s", "goodput, /s"),
)
"""The paper's six metrics, always together."""
EXTRA = {"short_p90_s": "short P90, s", "long_p90_s": "long P90, s"}
"""Further metrics that an experiment may show, by `columns` in its specification."""
SHARES = ("completion_rate", "deadline_satisfaction")


@dataclass(frozen=True, slots=True)
class Column:
    """A column's key in the rows and its heading; `text` columns are set to the left."""

    key: str
    heading: str
    text: bool = False


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Rows of plain values, and how to show them.

    Attributes:
        rows: as they go into the JSON.
        cells: as they are read, row by row, in the order of the columns.
        groups: for each row the heading under which it stands; a change starts a new group.

    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    cells: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...] = ()


def grid_table(name: str, results: Results) -> ResultTable:
    """Return an experiment's table: means and intervals of the paper's metrics."""
    rows, cells, groups = [], [], []
    labels = {v.name: v.label for v in results.experiments[name].variants}
    shown_here = (*((key, EXTRA[key]) for key in results.experiments[name].columns), *SHOWN)
    for regime in results.regimes(name):
        for variant, label in labels.items():
            cell = results.cell(name, regime, variant)
            row: dict[str, Any] = {"regime": regime, "variant": variant}
            shown = [label]
            for figure, _ in shown_here:
                mean = cell.interval(figure)
                row[figure] = none_if_nan(mean.mean)
                row[f"{figure}_low"] = none_if_nan(mean.low)
                row[f"{figure}_high"] = none_if_nan(mean.high)
                share = figure in SHARES
                shown.append(with_interval(mean.mean, mean.low, mean.high, share=share))
            row["shed"] = {bucket: cell.shed(bucket) for bucket in BUCKETS}
            row["deferrals"] = cell.mean("deferrals")
            shown.append("/".join(str(row["shed"][bucket]) for bucket in BUCKETS))
            rows.append(row)
            cells.append(tuple(shown))
            groups.append(regime)
    headings = tuple(Column(key, heading) for key, heading in shown_here)
    columns = (Column("variant", "", text=True), *headings, Column("shed", "shed s/m/l/xl"))
    return ResultTable(name, columns, tuple(rows), tuple(cells), tuple(groups))


def with_interval(mean: float, low: float, high: float, *, share: bool = False) -> str:
    """Return a mean with its interval, if it has one, as `0.354 [0.341, 0.367]`.

    Shares are said in per cent.
    """
    if math.isnan(mean):
        return "-"
    if math.isnan(low):
        return f"{100 * mean:.1f} %" if share else number(mean)
    if share:
        return f"{100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{number(mean)} [{number(low)}, {number(high)}]"


def number(value: float) -> str:
    """Return a number with three digits that count, and no exponent."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:.{digits}f}"


def none_if_nan(value: float) -> float | None:
    """Return None for nan, which JSON does not have."""
    return None if math.isnan(value) else value


def by_group(table: ResultTable) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return the shown rows under their headings, in order."""
    grouped: list[tuple[str, list[tuple[str, ...]]]] = []
    headings: Sequence[str] = table.groups or [""] * len(table.cells)
    for heading, cells in zip(headings, table.cells, strict=True):
        if not grouped or grouped[-1][0] != heading:
            grouped.append((heading, []))
        grouped[-1][1].append(cells)
    return grouped


OURS = {
    "policies": "full",
    "overload": "cost_ladder",
    "information": "coarse",
    "ablation": "full",
}
"""The variant that stands for our advice, by experiment."""
_NOT_A_RIVAL = {("information", "oracle")}
_GOOD_IF_LOW = ("short_p95_s", "p95_s", "makespan_s")
LEAST_GAIN = 0.02
_HEADINGS = dict(SHOWN)


@dataclass(frozen=True, slots=True)
class Loss:
    """One figure in which a rival is better, beyond the noise of the seeds."""

    experiment: str
    regime: str
    rival: str
    figure: str
    theirs: float
    ours: float


def losses(results: Results) -> list[Loss]:
    """Return every figure in which a rival beats our advice, in the order of the tables."""
    return [
        Loss(name, regime, variant.label, figure, theirs.mean(figure), mine.mean(figure))
        for name, ours in OURS.items()
        if name in results.experiments
        for regime in results.regimes(name)
        for mine in (results.cell(name, regime, ours),)
        for variant in results.experiments[name].variants
        if variant.name != ours and (name, variant.name) not in _NOT_A_RIVAL
        for theirs in (results.cell(name, regime, variant.name),)
        for figure, _ in SHOWN
        if is_better(theirs, mine, figure)
    ]


def is_better(theirs: Cell, ours: Cell, figure: str) -> bool:
    """Return whether they are better by 2 % and by more than the seeds can explain.

    Both ran the same draws, so the differences are taken seed by seed.
    """
    sign = -1.0 if figure in _GOOD_IF_LOW else 1.0
    pairs = [
        (mine.figures[figure], other.figures[figure])
        for mine, other in zip(ours.runs, theirs.runs, strict=True)
    ]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    gain = mean_of(tuple(sign * (b - a) for a, b in known))
    return gain.known and gain.low > 0 and gain.mean >= LEAST_GAIN * abs(ours.mean(figure))


def loss_table(results: Results) -> ResultTable | None:
    """Return the losses as a table; None where nothing was compared."""
    if not OURS.keys() & results.experiments.keys():
        return None
    found = losses(results)
    columns = (
        Column("regime", "regime", text=True),
        Column("rival", "is better", text=True),
        Column("figure", "in", text=True),
        Column("theirs", "theirs"),
        Column("ours", "ours"),
    )
    rows = tuple(asdict(loss) for loss in found)
    cells = tuple(
        (
            loss.regime,
            loss.rival,
            _HEADINGS[loss.figure].removesuffix(", s"),
            _shown(loss.figure, loss.theirs),
            _shown(loss.figure, loss.ours),
        )
        for loss in found
    )
    titles = {name: results.experiments[name].title for name in OURS if name in results.experiments}
    return ResultTable(
        "losses", columns, rows, cells, tuple(titles[loss.experiment] for loss in found)
    )


def _shown(figure: str, value: float) -> str:
    return f"{100 * value:.1f} %" if figure in SHARES else number(value)
