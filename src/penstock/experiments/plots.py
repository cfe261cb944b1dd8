"""Plots of a study: latencies, Pareto fronts, heat maps over worlds and cells; light, few lines."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from penstock.experiments.claims import ClaimVerdict
from penstock.experiments.regret import CellRegret
from penstock.experiments.results import Cell, Results

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D", "#000000")
"""Okabe & Ito, Color Universal Design, 2008; without their yellow, which is too pale on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (4, 1, 1, 1)), "-", "-", "-", "-")

_RC: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "penstock",
}


@contextmanager
def sheet(
    columns: int, rows: int = 1, *, width: float = 10.0, height: float = 2.7
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield a figure and its axes, row by row; the style holds inside the block."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        yield figure, [axis for row in axes for axis in row]


def svg(figure: Figure, *, describe: str) -> str:
    """Return the figure as an SVG element with a description for screen readers."""
    buffer = io.StringIO()
    with mpl.rc_context(_RC):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    element = text[text.index("<svg") :]
    escaped = describe.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return element.replace("<svg", f'<svg role="img" aria-label="{escaped}"', 1)


def log_seconds(axis: Axes) -> None:
    """Make the x axis logarithmic, with ticks at 1, 2 and 5 of every decade, in plain numbers."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    narrow = high < 2.0 * low  # no two of those ticks would be in sight
    axis.xaxis.set_major_locator(
        MaxNLocator(4) if narrow else LogLocator(subs=(1.0, 2.0, 5.0), numticks=12)
    )
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(lambda *_: "")


def legend_below(figure: Figure, axis: Axes) -> None:
    """Put one legend for all axes under the figure."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)))


def pareto_plot(name: str, results: Results) -> str:
    """Return deadline satisfaction against short P95, a panel a regime; the best is top left."""
    regimes = results.regimes(name)
    variants = results.experiments[name].variants
    columns = min(3, len(regimes)) if len(regimes) != 4 else 4
    rows = -(-len(regimes) // columns)
    with sheet(columns, rows, height=3.0) as (figure, axes):
        for axis, regime in zip(axes, regimes, strict=False):
            points: list[tuple[float, float]] = []
            for number, variant in enumerate(variants):
                cell = results.cell(name, regime, variant.name)
                p95 = cell.interval("short_p95_s")
                met = cell.interval("deadline_satisfaction")
                if not p95.known:
                    continue
                points.append((p95.mean, 100 * met.mean))
                axis.errorbar(
                    p95.mean,
                    100 * met.mean,
                    xerr=[[p95.mean - p95.low], [p95.high - p95.mean]],
                    yerr=[[100 * (met.mean - met.low)], [100 * (met.high - met.mean)]],
                    color=COLOURS[number % len(COLOURS)],
                    marker=MARKERS[number % len(MARKERS)],
                    markersize=6,
                    linewidth=0.8,
                    linestyle="none",
                    label=variant.label,
                )
            front = pareto_front(points)
            axis.plot(*zip(*front, strict=True), color="#999999", linewidth=1, zorder=0)
            log_seconds(axis)
            least = min(98.0, axis.get_ylim()[0])
            axis.set_ylim(least, 100.0 + 0.05 * (100.0 - least))
            axis.set_title(regime)
            axis.set_xlabel("short P95, s")
        for axis in axes[len(regimes) :]:
            axis.set_visible(False)
        axes[0].set_ylabel("deadlines met, %")
        legend_below(figure, axes[0])
        return svg(figure, describe=f"Deadlines met against short P95 by policy ({name})")


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that none beats in both (less of the first, more of the second)."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


_HOLDS, _FAILS = "#56B4E9", "#D55E00"


def worlds_plot(verdicts: Sequence[ClaimVerdict]) -> str:
    """Return a map with a row a claim and a column a world, those that break most to the right."""
    count = len(verdicts[0].worlds)
    order = sorted(range(count), key=lambda world: (-sum(v.worlds[world] for v in verdicts), world))
    grid = [[1.0 if v.worlds[world] else 0.0 for world in order] for v in verdicts]
    with sheet(1, height=0.32 * len(verdicts) + 1.0) as (figure, (axis,)):
        from matplotlib.colors import ListedColormap

        axis.imshow(
            grid,
            cmap=ListedColormap([_FAILS, _HOLDS]),
            vmin=0,
            vmax=1,
            aspect="auto",
            interpolation="nearest",
        )
        axis.set_yticks(
            range(len(verdicts)),
            [f"{v.claim}  {100 * (v.worlds_share or 0):.0f} %" for v in verdicts],
        )
        axis.set_xticks([])
        axis.set_xlabel(f"{count} perturbed worlds, ordered by how many claims hold")
        axis.set_title("blue: holds, orange: does not")
        axis.grid(visible=False)
        return svg(figure, describe="Which claims hold in which perturbed world")


def regret_plot(regrets: Sequence[CellRegret], deadline_max: float, ratio_max: float) -> str:
    """Return two maps: deadline regret and short P95 ratio by provider and regime."""
    with sheet(2, height=0.36 * len({r.provider for r in regrets}) + 1.3) as (figure, axes):
        deadline = {(r.provider, r.regime): 100 * r.deadline_regret for r in regrets}
        ratio = {(r.provider, r.regime): r.short_p95_ratio for r in regrets}
        _map(axes[0], deadline, 2 * 100 * deadline_max, 0.0, "deadline regret, points", "{:.1f}")
        _map(axes[1], ratio, 2 * ratio_max - 1.0, 1.0, "short P95 over the best", "{:.2f}x")
        return svg(figure, describe="Regret of the default stack by provider and regime")


def _map(
    axis: Axes,
    values: dict[tuple[str, str], float],
    high: float,
    low: float,
    title: str,
    form: str,
) -> None:
    """Draw one map; the middle of the scale is the most that is allowed."""
    rows = list(dict.fromkeys(place[0] for place in values))
    columns = list(dict.fromkeys(place[1] for place in values))
    grid = [[values[(row, column)] for column in columns] for row in rows]
    axis.imshow(grid, cmap="PuOr_r", vmin=low, vmax=high, aspect="auto", alpha=0.75)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_title(title)
    axis.grid(visible=False)
    for y, row in enumerate(grid):
        for x, value in enumerate(row):
            axis.text(x, y, form.format(value), ha="center", va="center", fontsize=8.5)


_GROUPS = (("short", "short requests"), ("long", "long and xlong"))


def cdf_plot(name: str, results: Results) -> str:
    """Return CDFs of latency by variant: a column a regime, a row a group of buckets."""
    regimes = results.regimes(name)
    variants = results.experiments[name].variants
    with sheet(len(regimes), len(_GROUPS)) as (figure, axes):
        for row, (group, title) in enumerate(_GROUPS):
            for column, regime in enumerate(regimes):
                axis = axes[row * len(regimes) + column]
                for number, variant in enumerate(variants):
                    values = pooled(results.cell(name, regime, variant.name), group)
                    if values:
                        shares = [100 * (i + 1) / len(values) for i in range(len(values))]
                        axis.plot(
                            values,
                            shares,
                            color=COLOURS[number % len(COLOURS)],
                            linestyle=DASHES[number % len(DASHES)],
                            label=variant.label,
                        )
                log_seconds(axis)
                axis.set_ylim(0, 100.5)
                if not row:
                    axis.set_title(regime)
                if not column:
                    axis.set_ylabel(f"% of {title}")
                if row == len(_GROUPS) - 1:
                    axis.set_xlabel("latency, s")
        legend_below(figure, axes[0])
        return svg(figure, describe=f"Latency distributions by policy and regime ({name})")


def pooled(cell: Cell, group: str) -> list[float]:
    """Return the group's latencies over all seeds, as 100 quantiles of a seed each."""
    return sorted(value for run in cell.runs for value in run.latencies_s.get(group, [])[1:])


def noise_plot(name: str, results: Results) -> str:
    """Return deadline satisfaction and short P95 against predictor noise, a line a regime."""
    experiment = results.experiments[name]
    levels = [100 * v.scenario["workload"]["noise"] for v in experiment.variants]
    shown = (
        ("deadline_satisfaction", "deadlines met, %", 100.0),
        ("short_p95_s", "short P95, s", 1.0),
        ("useful_goodput_per_s", "useful goodput, /s", 1.0),
    )
    with sheet(len(shown)) as (figure, axes):
        for axis, (figure_name, label, scale) in zip(axes, shown, strict=True):
            for number, regime in enumerate(results.regimes(name)):
                means = [
                    results.cell(name, regime, v.name).interval(figure_name)
                    for v in experiment.variants
                ]
                colour = COLOURS[number % len(COLOURS)]
                axis.plot(
                    levels,
                    [scale * m.mean for m in means],
                    color=colour,
                    marker=MARKERS[number % len(MARKERS)],
                    markersize=4,
                    label=regime,
                )
                axis.fill_between(
                    levels,
                    [scale * m.low for m in means],
                    [scale * m.high for m in means],
                    color=colour,
                    alpha=0.12,
                    linewidth=0,
                )
            axis.set_title(label)
            axis.set_xlabel("noise L, %")
            if figure_name == "deadline_satisfaction":
                axis.set_ylim(min(90.0, axis.get_ylim()[0]), 100.5)
            else:
                axis.set_ylim(bottom=0)
        legend_below(figure, axes[0])
        return svg(figure, describe="Metrics against predictor noise from 0 to 60 per cent")
