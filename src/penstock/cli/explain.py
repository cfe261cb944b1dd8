"""`penstock explain`: parse, wire, print."""

import json
import shutil
import sys
import urllib.parse
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.operator import a_sidecars_answer, admin_options, ask, unexpected
from penstock.cli.options import records_of, takes_log
from penstock.cli.printable import printable, say

if TYPE_CHECKING:
    from penstock.log.format import LogRecord


@click.command()
@click.argument("request_id", metavar="[ID]", required=False)
@takes_log(needed=False)
@click.option(
    "--window",
    is_flag=True,
    help="Instead of one request: say why the concurrency limits moved, a line for each move.",
)
@click.option("--upstream", default="", help="With --window: only this upstream's moves.")
@admin_options
def command(
    request_id: str | None,
    window: bool,
    upstream: str,
    log: Path | None,
    admin: str,
    token_env: str,
) -> None:
    """Return why a request was sent, held or refused when it was, or why the window moved.

    ID is what the answer's header x-penstock-id says. Tells its class, its route, its estimate and
    where that came from, how long it waited for what, and the severity, rung, window and deficit
    at each decision.

    With LOG, a decision log (log.decisions_path in the configuration), that is read; without, the
    running sidecar is asked, which also knows of a request that still waits what it waits for and
    when its turn may come. --window takes no ID: `penstock explain --window LOG`.
    """
    from penstock.log.explain import explain, explain_window

    if window and request_id is not None and log is None:
        log, request_id = Path(request_id), None
    if window == (request_id is not None) or (upstream and not window):
        raise click.UsageError("give either the ID of a request, or --window")
    if request_id is None:
        records = records_of(log) if log is not None else _from_sidecar(admin, token_env, "window")
        whose = f" of {upstream}: is there an upstream of that name?" if upstream else "."
        _print(explain_window(records, upstream, columns=_columns()) or [f"No window moved{whose}"])
        return
    if log is not None:
        lines = explain(records_of(log), request_id, columns=_columns())
    else:
        query = f"id={urllib.parse.quote(request_id)}"
        records = _from_sidecar(admin, token_env, query)
        so_far = partial(_so_far, admin, token_env, query)
        lines = explain(records, request_id, so_far=so_far, columns=_columns())
    if not lines:
        say(
            f"Nothing is known of request {request_id}. Ids look like 3f2a1c-42; the sidecar "
            "remembers the latest admin.decisions_kept requests, the decision log more.",
            err=True,
        )
        sys.exit(1)
    _print(lines)


def _print(lines: Iterable[str]) -> None:
    """Print lines in which names stand that callers chose."""
    click.echo("\n".join(map(printable, lines)))


def _columns() -> int:
    """Return the terminal's width; where there is none, lines are for programs: not broken."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 100_000


def _so_far(admin: str, token_env: str, query: str) -> list[str]:
    """Return what the dashboard says of a request that waits or flies."""
    status, body = ask(admin, token_env, f"/dashboard/request?{query}")
    if status != 200:
        return []
    with a_sidecars_answer(admin):
        return [str(line) for line in json.loads(body)["summary"]]


def _from_sidecar(admin: str, token_env: str, query: str) -> Iterator["LogRecord"]:
    from penstock.log.explain import NOTHING_KEPT
    from penstock.log.reader import parse_log

    status, lines = ask(admin, token_env, f"/decisions?{query}")
    if status == 404 and lines.decode(errors="replace").strip() == NOTHING_KEPT:
        return
    if status != 200:
        raise unexpected(admin, status, lines)
    yield from parse_log(lines)  # the answer is in the log's own format
