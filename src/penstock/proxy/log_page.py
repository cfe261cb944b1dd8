"""Serves the dashboard of a log on a port of its own, to this machine only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstock.dashboard.app import DashboardApp
from penstock.dashboard.views import ViewSource
from penstock.listener import Bounds, Listener, bind
from penstock.proxy.browsers import BrowserGuard

HOST = "127.0.0.1"


@asynccontextmanager
async def serving(source: ViewSource, port: int) -> AsyncIterator[int]:
    """Serve while the block runs; give it the port that was bound.

    Raises:
        OSError: the port cannot be had.

    """
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
