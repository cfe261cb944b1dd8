"""How a connection comes about: straight to the upstream, or through a proxy."""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from penstock.proxy.upstream.address import Address
from penstock.proxy.upstream.connection import Connection
from penstock.proxy.upstream.errors import DialError
from penstock.proxy.upstream.forward_proxy import ForwardProxy

_REPLY_MAX_BYTES = 16_384
_BLANK_LINE = b"\r\n\r\n"

Make = Callable[[], Connection]


async def dial(
    loop: asyncio.AbstractEventLoop,
    make: Make,
    address: Address,
    tls: ssl.SSLContext | None,
    through: ForwardProxy | None,
) -> Connection:
    """Return an open connection; requests on it are answered by the upstream.

    A proxy opens a tunnel to an upstream that speaks TLS, and sees nothing of what is said. To
    one that does not, the proxy relays requests itself; their target must then be a whole URL.

    Args:
        loop: the one that runs.
        make: makes the connection.
        address: the upstream's.
        tls: how it is verified; None for plain http.
        through: a proxy, or None.

    Raises:
        DialError: the proxy would not open a tunnel.
        OSError: nobody answered, or TLS failed.

    """
    if through is None:
        name = address.host if tls else None
        _, connection = await loop.create_connection(
            make, address.host, address.port, ssl=tls, server_hostname=name
        )
        return connection
    if tls is None:
        _, connection = await loop.create_connection(make, through.host, through.port)
        return connection
    return await _tunnelled(loop, make, address, tls, through)


async def _tunnelled(
    loop: asyncio.AbstractEventLoop,
    make: Make,
    address: Address,
    tls: ssl.SSLContext,
    through: ForwardProxy,
) -> Connection:
    """Ask the proxy for a tunnel, then speak TLS to the upstream through it.

    Source:
        CONNECT: RFC 9110, section 9.3.6.

    """
    host = f"[{address.host}]" if ":" in address.host else address.host
    target = f"{host}:{address.port}".encode("ascii")
    head = b"CONNECT " + target + b" HTTP/1.1\r\nhost: " + target + b"\r\n"
    asked = head + through.authorization + b"\r\n"
    transport, knock = await loop.create_connection(
        lambda: _Knock(loop, asked), through.host, through.port
    )
    try:
        refusal = await knock.answer
        if refusal:
            raise DialError(
                f"the proxy {through.host}:{through.port} opened no tunnel to "
                f"{host}:{address.port}: {refusal}"
            )
        connection = make()
        secured = await loop.start_tls(transport, connection, tls, server_hostname=address.host)
    except BaseException:
        transport.abort()
        raise
    connection.connection_made(cast("asyncio.BaseTransport", secured))
    return connection


class _Knock(asyncio.Protocol):
    """Asks for a tunnel; `answer` is "" once it is open, else why it is not."""

    def __init__(self, loop: asyncio.AbstractEventLoop, asked: bytes) -> None:
        self.answer: asyncio.Future[str] = loop.create_future()
        self._asked = asked
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._asked)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, blank, _ = self._heard.partition(_BLANK_LINE)
        if blank:
            self._say(_refusal(head))
        elif len(self._heard) > _REPLY_MAX_BYTES:
            self._say("its answer is not HTTP")

    def connection_lost(self, exc: Exception | None) -> None:
        self._say("it closed the connection instead of answering")

    def _say(self, text: str) -> None:
        if not self.answer.done():
            self.answer.set_result(text)


def _refusal(head: bytes) -> str:
    """Return what a proxy's answer says against a tunnel; "" if it is open."""
    line = head.split(b"\r\n", 1)[0].decode("latin-1")
    version, _, status = line.partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdigit():
        return "its answer is not HTTP"
    if status.startswith("407"):
        return f"{status} (it wants a user name and a password: give them in HTTPS_PROXY)"
    return "" if status.startswith("2") else status[:120]
