"""`penstock top`: the dashboard's *Now* in a terminal."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from penstock.cli.operator import a_sidecars_answer, admin_options, ask, unexpected
from penstock.cli.printable import printable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

Row = tuple[str, ...]

SLOWEST_SHOWN = 5
_WIDE = 120
"""So many columns hold all of a table; in fewer these are left out, or words stand one a line."""
_LEFT_OUT = frozenset(("later than predicted #", "arrive #", "how they ended", "ended"))
_PATH = "/dashboard/view?name=now"


@click.command()
@admin_options
@click.option(
    "--every",
    type=click.FloatRange(min=0.2),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Look again after so long.",
)
@click.option("--once", is_flag=True, help="Print it once and end, as where there is no terminal.")
def command(admin: str, token_env: str, every: float, once: bool) -> None:
    """Show who waits and for what, what flies, and how fast it goes; Ctrl-C ends it.

    It is what the dashboard's page shows as Now, asked of a running sidecar.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if once or not console.is_terminal:
        console.print(_looked(admin, token_env))
        return
    try:
        with Live(_looked(admin, token_env), console=console, screen=True) as live:
            while True:
                time.sleep(every)
                live.update(_looked(admin, token_env))
    except KeyboardInterrupt:
        return


def _looked(admin: str, token_env: str) -> "Group":
    status, body = ask(admin, token_env, _PATH)
    if status != 200:
        raise unexpected(admin, status, body)
    with a_sidecars_answer(admin):
        return _screen(json.loads(body))


def _screen(now: Mapping[str, Any]) -> "Group":
    from rich.console import Group
    from rich.text import Text

    at = time.strftime("%H:%M:%S", time.localtime(now["at"]))
    draining = ", draining" if now["draining"] else ""
    waiting = sum(row["waiting"] for row in now["classes"])
    flying = sum(row["in_flight"] for row in now["upstreams"])
    shown = ((title, now["columns"][name], rows(now)) for name, (title, rows) in _TABLES.items())
    return Group(
        Text(
            f"penstock {at}{draining}: {waiting:,} waiting, {flying:,} in flight, "
            f"severity {now['severity']:.2f}"
        ),
        *(_table(title, columns, rows) for title, columns, rows in shown if rows),
    )


def _upstreams(now: Mapping[str, Any]) -> list[Row]:
    return [
        (
            row["name"], f"{row['in_flight']:,}", _limit(row["window"]), _state(row),
            f"+{100 * row['slowdown']:.0f} %",
        )
        for row in now["upstreams"]
    ]  # fmt: skip


def _pins(now: Mapping[str, Any]) -> list[Row]:
    return [
        (
            pin["what"], pin["name"], "-" if pin["what"] == "pause" else _limit(pin["value"]),
            _seconds(pin["left_s"]),
        )
        for pin in now["pins"]
    ]  # fmt: skip


def _fallbacks(now: Mapping[str, Any]) -> list[Row]:
    return [
        (
            f"{row['requests']:,.0f}", row["model"] or "(any)", row["to"],
            f"{row['reason']}: {row['words']}",
        )
        for row in now["fallbacks"]
    ]  # fmt: skip


def _classes(now: Mapping[str, Any]) -> list[Row]:
    words = now["words"]
    return [
        (
            row["name"], f"{row['waiting']:,}", f"{row['in_flight']:,}",
            _seconds(row["oldest_s"]), _seconds(row["slack_s"]), _rate(row["arrived_per_s"]),
            _rate(row["sent_per_s"]), _counts(row["causes"], words["waits"]),
            _counts(row["ended"], words["results"]),
        )
        for row in now["classes"]
    ]  # fmt: skip


def _tenants(now: Mapping[str, Any]) -> list[Row]:
    return [
        (
            row["name"], tenant["name"] or "(none)", f"{tenant['waiting']:,}",
            _seconds(tenant["oldest_s"]), _seconds(tenant["slack_s"]),
        )
        for row in now["classes"]
        for tenant in row["tenants"]
    ]  # fmt: skip


def _turned_away(now: Mapping[str, Any]) -> list[Row]:
    return [(f"{row['requests']:,.0f}", row["status"], row["path"]) for row in now["turned_away"]]


def _longest_waiting(now: Mapping[str, Any]) -> list[Row]:
    return [
        (row["id"], row["traffic_class"], row["tenant"] or "-", _seconds(row["waited_s"]))
        for row in now["longest_waiting"]
    ]


def _slowest(now: Mapping[str, Any]) -> list[Row]:
    return [
        (
            row["id"], _seconds(row["latency_s"]), row["mostly"], _seconds(row["queued_s"]),
            row["traffic_class"], now["words"]["results"].get(row["result"], row["result"]),
        )
        for row in now["slowest"][:SLOWEST_SHOWN]
    ]  # fmt: skip


_TABLES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], list[Row]]]] = {
    "upstreams": ("Upstreams", _upstreams),
    "pins": ("Held by hand", _pins),
    "fallbacks": ("Gone on to another model", _fallbacks),
    "classes": ("Classes", _classes),
    "tenants": ("Tenants that wait", _tenants),
    "turned_away": ("Never scheduled", _turned_away),
    "longest_waiting": ("Waiting longest", _longest_waiting),
    "slowest": ("Slowest of the last 15 minutes", _slowest),
}
"""In the page's order, under the page's headings."""


def _table(title: str, columns: Sequence[str], rows: Sequence[Row]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim",
        box=None, pad_edge=False, padding=(0, 2, 0, 0),
    )  # fmt: skip
    narrow = shutil.get_terminal_size().columns < _WIDE
    shown = [n for n, name in enumerate(columns) if not (narrow and name in _LEFT_OUT)]
    for n in shown:
        number = columns[n].endswith(" #")
        justify: Literal["right", "left"] = "right" if number else "left"
        table.add_column(columns[n].removesuffix(" #"), justify=justify, no_wrap=number)
    for row in rows:
        # Tenants' names are the callers': no escapes of theirs, no markup.
        table.add_row(*(Text(printable(row[n])) for n in shown))
    return table


def _state(row: Mapping[str, Any]) -> str:
    said = [f"paused for {_seconds(row['paused_s'])}"] if row["paused_s"] > 0 else []
    if not said and row["probation"]:
        said = ["on probation"]
    said += [f"{count} circuit{'s' if count > 1 else ''} {t}" for t, count in row["pauses"].items()]
    return ", ".join(said).replace("_", "-") or "in use"


def _counts(counts: Mapping[str, int], words: Mapping[str, str]) -> str:
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return "; ".join(f"{count:,} {words.get(word, word)}" for word, count in ranked)


def _limit(window: float | None) -> str:
    return "no limit" if window is None else f"{window:.3g}"


def _rate(value: float) -> str:
    return f"{value:.1f}/s" if value < 10 else f"{value:.0f}/s"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    size = abs(value)
    if size >= 3600:
        return f"{value / 3600:.1f} h"
    if size >= 120:
        return f"{value / 60:.1f} min"
    return f"{value:.2f} s" if size < 10 else f"{value:.1f} s"
