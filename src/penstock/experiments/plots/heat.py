"""Heat maps: claims over perturbed worlds, and regrets over cells."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from penstock.experiments.claims.verdicts import ClaimVerdict
from penstock.experiments.plots.style import sheet, svg
from penstock.experiments.regret import CellRegret

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
