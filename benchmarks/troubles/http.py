"""The provider behind HTTP: a transport of httpx2, async and sync, and a server on a socket."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from benchmarks.troubles.provider import Answer, Provider
from tests.listening import listening

SSE, JSON = "text/event-stream", "application/json"
NUMBER = "call-number"


def _kind(answer: Answer) -> str:
    if answer.pieces:
        return SSE
    return "text/html" if answer.body.startswith(b"<") else JSON


def _asked(provider: Provider, request: httpx2.Request, now: float) -> Answer:
    streams = b'"stream":true' in request.content.replace(b" ", b"")
    return provider.answer(_number(json.loads(request.content)), streams=streams, now=now)


def _number(body: Any) -> int:
    return int(body["messages"][0]["content"])


class _Pieces(httpx2.AsyncByteStream, httpx2.SyncByteStream):
    """A reply's body in virtual time."""

    def __init__(
        self, answer: Answer, sleep: Callable[[float], object] = lambda _span_s: None
    ) -> None:
        self._answer = answer
        self._sleep = sleep

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for after_s, piece in self._answer.pieces or ((0.0, self._answer.body),):
            await asyncio.sleep(after_s)
            yield piece
        self._end()

    def __iter__(self) -> Iterator[bytes]:
        for after_s, piece in self._answer.pieces or ((0.0, self._answer.body),):
            self._sleep(after_s)
            yield piece
        self._end()

    def _end(self) -> None:
        if self._answer.ends == "cut":
            raise httpx2.RemoteProtocolError("peer closed the connection")


def _response(answer: Answer, stream: _Pieces) -> httpx2.Response:
    if answer.ends == "reset":
        raise httpx2.ReadError("connection reset by peer")
    if answer.ends == "silent":
        raise httpx2.ReadTimeout("nothing came")
    headers = [("content-type", _kind(answer)), *answer.headers]
    return httpx2.Response(answer.status, headers=headers, stream=stream)


class AsyncWire(httpx2.AsyncBaseTransport):
    """The way to a provider on an event loop's clock."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        now = asyncio.get_running_loop().time()
        answer = _asked(self._provider, request, now)
        await asyncio.sleep(answer.after_s)
        return _response(answer, _Pieces(answer))


class SyncWire(httpx2.BaseTransport):
    """The way to a provider on a clock of threads."""

    def __init__(self, provider: Provider, clock: Any) -> None:
        self._provider = provider
        self._clock = clock

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = _asked(self._provider, request, self._clock.time())
        self._clock.sleep(answer.after_s)
        return _response(answer, _Pieces(answer, self._clock.sleep))


@asynccontextmanager
async def served(provider: Provider) -> AsyncIterator[str]:
    """Serve a provider on a loopback port and yield its base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await _serve_one(provider, reader, writer):
            pass

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}/v1"


async def _serve_one(
    provider: Provider, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Answer one request; False if the connection is over."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    body = json.loads(await reader.readexactly(length))
    now = asyncio.get_running_loop().time()
    answer = provider.answer(_number(body), streams=bool(body.get("stream")), now=now)
    await asyncio.sleep(answer.after_s)
    if answer.ends in ("reset", "silent"):
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    lines = [f"HTTP/1.1 {answer.status} X", f"content-type: {_kind(answer)}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if answer.pieces:
        lines.append("transfer-encoding: chunked")
    else:
        lines.append(f"content-length: {len(answer.body)}")
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
    for after_s, piece in answer.pieces:
        await asyncio.sleep(after_s)
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    writer.write(answer.body)
    if answer.pieces and answer.ends == "whole":
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return answer.ends == "whole"
