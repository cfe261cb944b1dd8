"""`penstock dashboard`: the sidecar's page, from a decision log."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.options import takes_log
from penstock.runtime.uninterrupted import run_loop

if TYPE_CHECKING:
    from penstock.dashboard.views import ViewSource

HOST = "127.0.0.1"


@click.command()
@takes_log()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8789,
    show_default=True,
    help="Listen here, on 127.0.0.1; 0 takes a free port.",
)
def command(log: Path, port: int) -> None:
    """Show the dashboard of a decision log, as at the end of its last run.

    LOG is log.decisions_path in the configuration; its rotated elders are read as well. A running
    sidecar shows the same page, live, at http://127.0.0.1:8788/dashboard (its admin listener).
    """
    from penstock.dashboard.from_log import LogSource

    try:
        source = LogSource(log)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None
    with contextlib.suppress(KeyboardInterrupt):
        run_loop(lambda: _serve(source, port))


async def _serve(source: "ViewSource", port: int) -> None:
    from penstock.dashboard.app import ROOT

    try:
        async with serving(source, port) as bound:
            click.echo(f"the dashboard is at http://127.0.0.1:{bound}{ROOT} (Ctrl-C ends it)")
            await asyncio.Event().wait()
    except OSError as error:
        raise click.ClickException(
            f"--port {port}: cannot listen on it ({error.strerror or error}): is another dashboard "
            "open? --port 0 takes a free one."
        ) from None


@asynccontextmanager
async def serving(source: "ViewSource", port: int) -> AsyncIterator[int]:
    """Serve a log's dashboard to this machine while the block runs; yield the port that was bound.

    Raises:
        OSError: the port cannot be had.

    """
    from penstock.dashboard.app import DashboardApp
    from penstock.listener import Bounds, Listener, bind
    from penstock.proxy.browsers import BrowserGuard

    sock = bind(HOST, port)
    page = DashboardApp(source)
    guard = BrowserGuard(page, "admin", HOST, (), ())
    listener = Listener(guard, sock, Bounds(connections=64))
    await listener.start()
    try:
        yield sock.getsockname()[1]
    finally:
        page.close()
        await listener.stop(1.0)
