"""The table in which `penstock predict` shows the figures of estimates."""

from typing import Any

from penstock.cli.printable import printable

_SHOWN = (
    ("n", "n", "{:,}"),
    ("bucket_accuracy", "bucket", "{:.3f}"),
    ("pair_ranking", "ranking", "{:.3f}"),
    ("spearman", "spearman", "{:.3f}"),
    ("median_multiplicative_error", "error", "x{:.2f}"),
    ("p90_coverage", "p90 cover", "{:.3f}"),
)
_SECTIONS = ("stretches", "routes", "models", "sources")


def print_figures(report: dict[str, Any]) -> None:
    """Print a report's figures: over all rows, then by section, as far as it has them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", *(title for _, title, _ in _SHOWN), box=None)
    table.add_row("all", *_cells(report))
    for section in _SECTIONS:
        rows = report.get(section)
        if not rows:
            continue
        table.add_row(Text(section, "bold"))
        for name, row in rows.items():
            table.add_row(Text(printable(name) or "(none)"), *_cells(row))
    console = Console()
    console.print(table)
    if "latency_p50_us" in report:
        console.print(
            f"prediction p50 {report['latency_p50_us']:.0f} us, "
            f"state {report['state_bytes']:,} bytes"
        )


def _cells(row: dict[str, Any]) -> list[str]:
    return ["-" if row[key] is None else form.format(row[key]) for key, _, form in _SHOWN]
