"""`penstock top`: the dashboard's *Now* in a terminal."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.operator import a_sidecars_answer, admin_options, ask, unexpected
from penstock.cli.printable import printable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SLOWEST_SHOWN = 5
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
    words = now["words"]
    return Group(
        Text(
            f"penstock {at}{draining}: {waiting:,} waiting, {flying:,} in flight, "
            f"severity {now['severity']:.2f}"
        ),
        _table(
            {"upstream": "", "in flight": "#", "window": "#", "state": ""},
            (
                (row["name"], f"{row['in_flight']:,}", _limit(row["window"]), _state(row))
                for row in now["upstreams"]
            ),
        ),
        *_pins(now["pins"]),
        *_fallbacks(now["fallbacks"]),
        _table(
            {
                "class": "", "waiting": "#", "in flight": "#", "oldest": "#", "slack": "#",
                "sent/s": "#", "waits for": "",
            },
            (
                (
                    row["name"], f"{row['waiting']:,}", f"{row['in_flight']:,}",
                    _seconds(row["oldest_s"]), _seconds(row["slack_s"]),
                    f"{row['sent_per_s']:.1f}", _causes(row["causes"], words["waits"]),
                )
                for row in now["classes"]
            ),
        ),
        _table(
            {"waiting longest": "", "class": "", "tenant": "", "waits": "#"},
            (
                (row["id"], row["traffic_class"], row["tenant"], _seconds(row["waited_s"]))
                for row in now["longest_waiting"]
            ),
        ),
        *_slowest(now["slowest"][:SLOWEST_SHOWN]),
        *_turned_away(now["turned_away"]),
    )  # fmt: skip


def _pins(pins: Sequence[Mapping[str, Any]]) -> "list[Table]":
    if not pins:
        return []
    rows = (
        (
            pin["what"],
            pin["name"],
            "" if pin["what"] == "pause" else f"{pin['value']:g}",
            _seconds(pin["left_s"]),
        )
        for pin in pins
    )
    return [_table({"held by hand": "", "of": "", "value": "#", "ends in": "#"}, rows)]


def _slowest(rows: Sequence[Mapping[str, Any]]) -> "list[Table]":
    if not rows:
        return []
    shown = (
        (
            row["id"],
            row["traffic_class"],
            _seconds(row["latency_s"]),
            _seconds(row["queued_s"]),
            row["mostly"],
        )
        for row in rows
    )
    head = {"slowest, 15 min": "", "class": "", "took": "#", "waited": "#", "mostly because": ""}
    return [_table(head, shown)]


def _turned_away(rows: Sequence[Mapping[str, Any]]) -> "list[Table]":
    if not rows:
        return []
    shown = ((f"{row['requests']:,.0f}", row["status"], row["path"]) for row in rows)
    return [_table({"never scheduled": "#", "status": "#", "path": ""}, shown)]


def _fallbacks(rows: Sequence[Mapping[str, Any]]) -> "list[Table]":
    if not rows:
        return []
    shown = (
        (f"{row['requests']:,.0f}", row["model"] or "(any)", row["to"], row["words"])
        for row in rows
    )
    return [_table({"gone on": "#", "model": "", "to": "", "because": ""}, shown)]


def _table(columns: Mapping[str, str], rows: Any) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, kind in columns.items():
        table.add_column(name, justify="right" if kind else "left", no_wrap=bool(kind))
    for row in rows:
        # Tenants' names are the callers': no escapes of theirs, no markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _state(row: Mapping[str, Any]) -> str:
    causes = [f"paused {_seconds(row['paused_s'])}"] if row["paused_s"] > 0 else []
    if not causes and row["probation"]:
        causes = ["on probation"]
    causes += [f"{count} {text}" for text, count in row["pauses"].items()]
    return ", ".join(causes) or "in use"


def _causes(causes: Mapping[str, int], words: Mapping[str, str]) -> str:
    ranked = sorted(causes.items(), key=lambda item: -item[1])
    return "; ".join(f"{count:,} {words.get(cause, cause)}" for cause, count in ranked)


def _limit(window: float | None) -> str:
    return "no limit" if window is None else f"{window:g}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 60:.1f} min" if abs(value) >= 120 else f"{value:.1f} s"
