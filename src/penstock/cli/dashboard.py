"""`penstock dashboard`: the sidecar's page, from a decision log."""

import asyncio
import contextlib
from pathlib import Path

import click


@click.command()
@click.argument("log", type=click.Path(dir_okay=False, path_type=Path))
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
        asyncio.run(_serve(source, port))


async def _serve(source: object, port: int) -> None:
    from penstock.dashboard.app import ROOT
    from penstock.proxy.log_page import serving

    try:
        async with serving(source, port) as bound:  # type: ignore[arg-type]
            click.echo(f"the dashboard is at http://127.0.0.1:{bound}{ROOT} (Ctrl-C ends it)")
            await asyncio.Event().wait()
    except OSError as error:
        raise click.ClickException(
            f"--port {port}: cannot listen on it ({error.strerror or error}): is another dashboard "
            "open? --port 0 takes a free one."
        ) from None
