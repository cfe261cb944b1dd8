"""Latency CDFs and noise curves."""

from penstock.experiments.plots.style import (
    COLOURS,
    DASHES,
    MARKERS,
    legend_below,
    log_seconds,
    sheet,
    svg,
)
from penstock.experiments.results import Cell, Results

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
