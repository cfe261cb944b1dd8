"""What comes before an answer's head, and an answer that comes before its request is sent."""

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest

from tests.integrations.http.rig import BODY, REPLY, assert_idle, only, penstock_with
from tests.listening import listening_apart
from tests.proxy.sidecars import eventually

LIBRARIES = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
DOORS = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
INTERIM = b"HTTP/1.1 102 Processing\r\nx-place: 7\r\n\r\n"


def answer(status: str, document: Any) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


GOOD = answer("200 OK", REPLY)
TOO_LARGE = answer("413 Too Large", {"error": {"message": "at most 1 MB"}})


async def asked(library: Any, port: int, *, sync: bool, read_s: float, body: Any = BODY) -> Any:
    """Return the answer to one call, and the penstock that sent it is idle."""
    scheduled = penstock_with()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    options = {"library": library.__name__, "timeout": library.Timeout(20.0, read=read_s)}
    try:
        if sync:
            with scheduled.client(**options) as client:
                return await asyncio.to_thread(client.post, url, json=body)
        async with scheduled.async_client(**options) as client:
            return await client.post(url, json=body)
    finally:
        eventually(lambda: only(scheduled).in_flight == 0)  # the clock's thread may have the turn
        assert_idle(scheduled)
        scheduled.close()


def interim_for(seconds: float, then: bytes) -> Callable[..., Any]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(round(seconds * 50)):
            writer.write(INTERIM)
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(then)
        await writer.drain()

    return serve


@LIBRARIES
@DOORS
async def test_interim_answers_end_no_wait(library: Any, sync: bool) -> None:
    with listening_apart(interim_for(5.0, GOOD)) as port, pytest.raises(library.ReadTimeout):
        await asked(library, port, sync=sync, read_s=0.3)


@LIBRARIES
@DOORS
async def test_an_answer_comes_behind_some_interim_ones(library: Any, sync: bool) -> None:
    with listening_apart(interim_for(0.1, GOOD)) as port:
        reply = await asked(library, port, sync=sync, read_s=20.0)
    assert reply.json() == REPLY


@LIBRARIES
@DOORS
async def test_interim_answers_are_bounded(library: Any, sync: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(INTERIM * 4000 + GOOD)
        await writer.drain()

    with listening_apart(serve) as port, pytest.raises(library.RemoteProtocolError):
        await asked(library, port, sync=sync, read_s=20.0)


@LIBRARIES
@pytest.mark.parametrize("resets", [True, False], ids=["resets", "reads no further"])
async def test_a_refusal_of_a_body_is_heard_while_it_is_sent(library: Any, resets: bool) -> None:
    asked_times = 0
    over, callers_loop = asyncio.Event(), asyncio.get_running_loop()

    async def turns() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked_times
        asked_times += 1
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1 << 20)  # it is being sent
        writer.write(TOO_LARGE)
        await writer.drain()
        if not resets:
            await over.wait()
        # A reset drops what has come and is not read yet: the caller's loop has its turn first.
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(turns(), callers_loop))
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    large = {**BODY, "messages": [{"role": "user", "content": "water " * 4_000_000}]}
    with listening_apart(serve) as port:
        reply = await asked(library, port, sync=False, read_s=20.0, body=large)

    assert (reply.status_code, reply.json()["error"]["message"]) == (413, "at most 1 MB")
    assert asked_times == 1
