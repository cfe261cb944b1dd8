"""The table in which `penstock whatif` shows its differences: a row for each figure of a group."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.cli.printable import printable

if TYPE_CHECKING:
    from penstock.twin.whatif import Difference, Group

_FIGURES = {
    "met": ("deadlines met", 100.0, "{:.1f} %", "{:+z.1f} points"),
    "p50_s": ("latency P50", 1.0, "{:.2f} s", "{:+z.2f} s"),
    "p95_s": ("latency P95", 1.0, "{:.2f} s", "{:+z.2f} s"),
    "refused": ("refused", 100.0, "{:.1f} %", "{:+z.1f} points"),
    "usd": ("money", 1.0, "{:.2f} USD", "{:+z.2f} USD"),
}


def print_groups(groups: Sequence["Group"]) -> None:
    """Print the groups' figures; money only where a price was given."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "really", "twin", "what if", "change", "95 % interval", box=None)
    priced = any(group.figures["usd"].now or group.figures["usd"].then for group in groups)
    for group in groups:
        name = printable(group.name) or "(none)"
        title = "all" if group.kind == "all" else f"{group.kind} {name}"
        table.add_row(Text(f"{title}: {group.calls:,} calls", "bold"))
        for figure, form in _FIGURES.items():
            if figure != "usd" or priced:
                table.add_row(*_cells(group.figures[figure], *form))
    Console(width=100 if not Console().is_terminal else None).print(table)


def _cells(found: "Difference", title: str, times: float, form: str, change: str) -> list[str]:
    def shown(value: float, pattern: str) -> str:
        return "-" if math.isnan(value) else pattern.format(value * times)

    interval = f"{shown(found.low, change)} to {shown(found.high, change)}"
    unsure = "" if found.sure or math.isnan(found.low) else " (may be none)"
    real, now, then = (shown(value, form) for value in (found.real, found.now, found.then))
    return [f"  {title}", real, now, then, shown(found.change, change), interval + unsure]
