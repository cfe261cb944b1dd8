"""Tables for people and for JSON: one row a regime and variant."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock.experiments.results import Results
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
