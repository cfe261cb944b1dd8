"""The table in which `penstock simulate` shows its results: a row per policy, in their order."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from penstock.cli.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from penstock.sim.simulate import Result

_NAME_WIDTH = 6
"""What a policy's name keeps where there is little room: it is folded, figures never are."""

_SECONDS = {
    "short\nP95": "short_p95_s",
    "long\nP90": "long_p90_s",
    "all\nP95": "p95_s",
    "make-\nspan": "makespan_s",
}
_PER_CENT = {"com-\npleted": "completion_rate", "in\ntime": "deadline_satisfaction"}


def print_table(results: Sequence["Result"]) -> None:
    """Print the means over the seeds.

    A terminal's width is kept as long as the figures have room in it; a pipe or a file takes as
    much as the table needs, because nobody knows how wide its reader is.
    """
    from rich.console import Console
    from rich.measure import Measurement

    by_policy = _by_policy(results)
    table = _table(by_policy, seeds=len({r.seed for r in results}))
    console = Console()
    widest = console.options.update(width=100_000)
    needed = Measurement.get(console, widest, table).maximum
    if console.is_terminal:
        needed -= max(0, _widest_name(console, by_policy) - _NAME_WIDTH)
        needed = max(needed, console.width)
    Console(width=needed).print(table)


def _by_policy(results: Sequence["Result"]) -> dict[str, list["Result"]]:
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.policy, []).append(result)
    return grouped


def _widest_name(console: "Console", names: Iterable[str]) -> int:
    from rich.text import Text

    return max(console.measure(Text(printable(name))).maximum for name in names)


def _table(by_policy: dict[str, list["Result"]], *, seeds: int) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    title = f"Means over {seeds} seed{'s' if seeds > 1 else ''}; latencies in seconds"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    table.add_column("policy", overflow="fold")
    columns = _columns([[r.row() for r in group] for group in by_policy.values()])
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, *cells in zip(by_policy, *columns.values(), strict=True):
        table.add_row(Text(printable(name)), *cells)
    return table


def _columns(groups: list[list[dict[str, Any]]]) -> dict[str, list[str]]:
    """Return each column's cells by its heading; a column's points stand under each other."""

    def means(key: str) -> list[float | None]:
        return [_mean([row[key] for row in rows]) for rows in groups]

    return {
        **{heading: _seconds(means(key)) for heading, key in _SECONDS.items()},
        **{heading: _cells(means(key), 1, 100, "%") for heading, key in _PER_CENT.items()},
        "useful\nper s": _cells(means("useful_goodput_per_s"), 2),
        "defer-\nrals": _cells(means("deferrals"), 0),
        "shed\nS/M/L/XL": [_shed([row["shed"] for row in rows]) for rows in groups],
    }


def _mean(values: list[float | None]) -> float | None:
    """Return the mean of what there is; a run in which nothing completed has no latencies."""
    given = [value for value in values if value is not None]
    return fmean(given) if given else None


def _seconds(means: list[float | None]) -> list[str]:
    """Return times with as many decimals as the shortest of them needs for three digits."""
    shortest = min((mean for mean in means if mean is not None), default=0.0)
    return _cells(means, 2 if shortest < 10 else 1 if shortest < 100 else 0)


def _cells(means: list[float | None], decimals: int, times: float = 1, unit: str = "") -> list[str]:
    return ["-" if mean is None else f"{times * mean:.{decimals}f}{unit}" for mean in means]


def _shed(counts: list[Mapping[str, int]]) -> str:
    """Return the mean counts by bucket, as `0/0.7/12`."""
    means = (fmean(count[bucket] for count in counts) for bucket in counts[0])
    return "/".join(f"{mean:.1f}".removesuffix(".0") for mean in means)
