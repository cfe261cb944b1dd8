"""A provider that speaks TLS behind a proxy that only tunnels, as in a company's network."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import trustme

from tests.listening import listening

HOST = "provider.invalid"
"""Nobody can reach it but through the proxy."""
AUTHORITY = trustme.CA()
"""Nothing but these tests trusts it."""


def trusting() -> ssl.SSLContext:
    """Return a client's context that trusts the test's certificate."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


class Tunnels:
    """A proxy for CONNECT, and the TLS in front of a provider that has none."""

    def __init__(self, provider_port: int) -> None:
        self._provider_port = provider_port
        self._tls_port = 0
        self.url = ""
        self.asked: list[str] = []
        self.credentials: list[str] = []
        self.refuses_with = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Tunnels"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        AUTHORITY.issue_cert(HOST).configure_cert(context)
        async with (
            listening(self._decrypt, tls=context) as self._tls_port,
            listening(self._tunnel) as port,
        ):
            self.url = f"http://127.0.0.1:{port}"
            yield self

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        self.asked.append(head[0])
        for line in head[1:]:
            name, _, value = line.partition(": ")
            if name.lower() == "proxy-authorization":
                self.credentials.append(value)
        if self.refuses_with:
            writer.write(f"HTTP/1.1 {self.refuses_with}\r\ncontent-length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _join(reader, writer, self._tls_port)

    async def _decrypt(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, self._provider_port)


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    there, back = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.gather(_pour(reader, back), _pour(there, writer))
    finally:
        back.close()


async def _pour(source: asyncio.StreamReader, into: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # either end may go away at any time
        while data := await source.read(65_536):
            into.write(data)
            await into.drain()
    into.close()
