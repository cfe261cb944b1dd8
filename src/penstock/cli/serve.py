"""`penstock serve`: the sidecar."""

import asyncio
import gc
import logging
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from penstock.proxy.config import Loaded
    from penstock.proxy.server import Running


@click.command()
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(dir_okay=False),
    default="penstock.toml",
    show_default=True,
    help="The configuration; see docs/reference/configuration.md.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Check the configuration and the files it names, say what is wrong, and end.",
)
def command(path: str, check: bool) -> None:
    """Run the sidecar: point your SDK's base_url at it, and change nothing else.

    It listens for callers on one port and shows operators /healthz, /readyz, /metrics, /snapshot
    and /decisions on another. SIGTERM or Ctrl-C drains it: nothing new is taken, replies under
    way may finish. A second signal cuts them off. SIGHUP reads the configuration again.
    """
    gc.disable()  # until it listens: what a start makes stays, and looking at it took 8 % of it
    try:
        _run(path, check=check)
    finally:
        gc.enable()


def _run(path: str, *, check: bool) -> None:
    from penstock.proxy.config import load

    loaded = load(path)
    if check:
        from penstock.proxy.preflight import preflight

        preflight(loaded, where=path)
        click.echo(f"{path}: good.")
        return
    from penstock.proxy.reload import read_settled
    from penstock.proxy.server import Running

    _log_to_stderr(loaded.config.log.level)

    async def serve() -> None:
        running = Running(loaded, lambda: read_settled(path))
        await running.run(started=lambda: _announce(running, loaded))

    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(serve())


def _log_to_stderr(level: str) -> None:
    """Send penstock's own log to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("penstock")
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False


def _shown(host: str) -> str:
    """Return a host as it stands in an URL."""
    return f"[{host}]" if ":" in host else host


def _announce(running: "Running", loaded: "Loaded") -> None:
    config = loaded.config
    lines = [f"penstock listens on http://{_shown(config.server.host)}:{running.port}/v1"]
    if running.admin_port:
        lines.append(f"admin pages on http://{_shown(config.admin.host)}:{running.admin_port}")
    for name, proxy in loaded.forward_proxies.items():
        lines.append(f"upstream {name} is reached through the proxy {proxy.host}:{proxy.port}")
    click.echo("\n".join(lines), file=sys.stderr)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ModuleNotFoundError:  # Windows has none
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
