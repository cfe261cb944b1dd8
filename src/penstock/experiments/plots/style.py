"""How every plot looks: light, few lines, colours that the colour-blind can tell apart."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

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
