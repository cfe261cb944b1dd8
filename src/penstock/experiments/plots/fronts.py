"""Pareto fronts: what a policy gives up in one metric to gain in another."""

from penstock.experiments.plots.style import COLOURS, MARKERS, legend_below, log_seconds, sheet, svg
from penstock.experiments.results import Results


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
