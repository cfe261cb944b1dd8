"""Listens on a socket, and gives an ASGI application what callers ask there."""

import asyncio
import contextlib
import socket

from penstock.asgi import Application
from penstock.listener.connections import LOOK_S, Bounds, Connections

BACKLOG = 2048
DESCRIPTORS_KEPT, DESCRIPTORS_WANTED = 160, 65_536


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one, and `::` is IPv4 as well.

    Raises:
        OSError: the address cannot be had.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    sock = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    sock.setblocking(False)
    return sock


def connection_limit(wanted: int) -> int:
    """Return how many callers' connections this process has descriptors for, at most `wanted`.

    Each caller may need one upstream connection beside its own; some room is kept for files, for
    who is refused and for the operators' listener. The soft limit on descriptors is raised to the
    hard one first.
    """
    try:
        import resource
    except ModuleNotFoundError:  # Windows counts otherwise
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, DESCRIPTORS_WANTED) if hard == resource.RLIM_INFINITY else hard
    if soft < most:
        with contextlib.suppress(ValueError, OSError):  # a container may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return max(1, min(wanted, max(soft // 16, (soft - DESCRIPTORS_KEPT) // 2)))


class Listener:
    """Serves one application on one socket."""

    def __init__(self, application: Application, sock: socket.socket, bounds: Bounds) -> None:
        """Serve nothing yet."""
        self._application = application
        self._socket = sock
        self._bounds = bounds
        self._connections: Connections | None = None
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._late = False

    @property
    def open_connections(self) -> int:
        """How many callers are connected."""
        return 0 if self._connections is None else len(self._connections.open)

    async def start(self) -> None:
        """Answer from now on."""
        loop = asyncio.get_running_loop()
        self._connections = Connections(self._application, self._bounds)
        self._server = await loop.create_server(self._connections, sock=self._socket)
        self._timer, self._due = loop.call_later(LOOK_S, self._look), loop.time() + LOOK_S

    async def stop(self, grace_s: float) -> None:
        """Accept nobody any more; let what is being answered end, but not longer than the grace."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        if self._connections is not None:
            self._connections.pre_shutdown()  # idle connections close at once
            await self._connections.shutdown(max(grace_s, 0.001))  # 0 would be for ever

    def _look(self) -> None:
        assert self._connections is not None
        loop = asyncio.get_running_loop()
        now, due = loop.time(), self._due
        self._timer, self._due = loop.call_later(LOOK_S, self._look), now + LOOK_S
        # This process was suspended: what has come meanwhile is read first. One that is late each
        # time looks every other time.
        self._late = now - due > LOOK_S and not self._late
        if self._late:
            return
        connections = list(self._connections.open)
        over = sum(connection.look(now) for connection in connections)
        over -= self._bounds.unread_room()
        if over > 0:
            for connection in sorted(connections, key=lambda each: each.moved_at):
                link = connection.link
                if over > 0 and link is not None:
                    over -= link.get_write_buffer_size()
                    connection.cut()
