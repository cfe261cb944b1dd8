"""The tables in which `penstock whatif` shows its differences: one a group, a row for a figure."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.cli.printable import printable

if TYPE_CHECKING:
    from penstock.twin.whatif import Difference, Group

_FIGURES = {
    "met": ("deadlines met", 100.0, "{:.1f} %", "{:+z.1f}", " points"),
    "p50_s": ("latency P50", 1.0, "{:.2f} s", "{:+z.2f}", " s"),
    "p95_s": ("latency P95", 1.0, "{:.2f} s", "{:+z.2f}", " s"),
    "refused": ("refused", 100.0, "{:.1f} %", "{:+z.1f}", " points"),
    "usd": ("USD", 1.0, "{:.2f}", "{:+z.2f}", ""),
}
_COLUMNS = {"": 13, "really": 9, "twin": 9, "what if": 9, "change": 12, "95 % interval": 20}
"""Widths: with a blank between, 77 of a terminal's 80."""


def print_groups(groups: Sequence["Group"]) -> None:
    """Print the groups' figures; money only where a price was given."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if Console().is_terminal else 80)
    priced = any(group.figures["usd"].now or group.figures["usd"].then for group in groups)
    unsure = False
    for group in groups:
        table = Table(box=None, padding=(0, 1, 0, 0))
        for name, width in _COLUMNS.items():
            table.add_column(name, min_width=width, overflow="fold")
        for figure, form in _FIGURES.items():
            if figure != "usd" or priced:
                table.add_row(*_cells(group.figures[figure], *form))
                unsure = unsure or _unsure(group.figures[figure])
        name = printable(group.name) or "(none)"
        title = "all" if group.kind == "all" else f"{group.kind} {name}"
        console.print(Text(f"{title}: {group.calls:,} calls", "bold"))
        console.print(table)
        console.print()
    if unsure:
        console.print("?  The interval holds 0: there may be no change.\n")


def _unsure(found: "Difference") -> bool:
    return not found.sure and not math.isnan(found.low)


def _cells(
    found: "Difference", title: str, times: float, form: str, change: str, unit: str
) -> list[str]:
    def shown(value: float, pattern: str) -> str:
        return "-" if math.isnan(value) else pattern.format(value * times)

    interval = f"{shown(found.low, change)} to {shown(found.high, change)}"
    doubt = " ?" if _unsure(found) else ""
    real, now, then = (shown(value, form) for value in (found.real, found.now, found.then))
    return [title, real, now, then, shown(found.change, change + unit), interval + doubt]
