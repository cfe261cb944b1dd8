"""A provider that closes its connections unannounced: what crosses that is sent once more."""

import asyncio
import json
from typing import Any

import httpx
import httpx2
import pytest

from penstock.core.events import Failed
from tests.integrations.http.rig import BODY, REPLY, Tape, assert_idle, penstock_with
from tests.listening import listening_apart
from tests.proxy.test_warm_connections import Fickle

pytestmark = pytest.mark.parametrize("library", ["httpx2", "httpx"])
CALLS = 12
"""Of which a budget for retries allows three."""


def check(found: list[int], tape: Tape, upstream: Fickle) -> None:
    assert found == [200] * CALLS
    assert [(event.retryable, event.reused) for event in tape.of(Failed)] == [(True, True)] * (
        CALLS - 1
    )
    assert upstream.connections == CALLS


def test_a_thread_loses_no_call(library: Any) -> None:
    tape = Tape()
    scheduled, seen = penstock_with(tape=tape), []
    with Fickle() as upstream, scheduled.client(library=library) as client:
        url = f"http://127.0.0.1:{upstream.port}/v1/chat/completions"
        told = {"trace": lambda event, _info: seen.append(event)}
        found = [client.post(url, json=BODY, extensions=told).status_code for _ in range(CALLS)]

    check(found, tape, upstream)
    assert_idle(scheduled)
    assert seen.count("http11.receive_response_body.complete") == CALLS


async def test_a_coroutine_loses_no_call(library: Any) -> None:
    tape = Tape()
    scheduled, seen = penstock_with(tape=tape), []

    async def follow(event: str, _info: object) -> None:
        seen.append(event)

    with Fickle() as upstream:
        async with scheduled.async_client(library=library) as client:
            url = f"http://127.0.0.1:{upstream.port}/v1/chat/completions"
            told = {"trace": follow}
            found = [
                (await client.post(url, json=BODY, extensions=told)).status_code
                for _ in range(CALLS)
            ]

    check(found, tape, upstream)
    assert_idle(scheduled)
    assert seen.count("http11.receive_response_body.complete") == CALLS


def test_what_breaks_on_a_fresh_connection_is_the_providers_fault(library: Any) -> None:
    tape = Tape()

    async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    with (
        listening_apart(hang_up) as port,
        penstock_with(tape=tape).client(library=library) as client,
    ):
        with pytest.raises((httpx.TransportError, httpx2.TransportError)):
            client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=BODY)

    assert not any(event.reused for event in tape.of(Failed))


def _answer(number: int, shape: str) -> list[bytes]:
    """Return a good answer's pieces, of which the last says more than was asked."""
    mine = json.dumps({**REPLY, "id": f"mine-{number}"}).encode()
    length = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
    poison = length % 8 + b"poisoned"
    if shape == "length":
        return [length % len(mine) + mine + poison]
    chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (
        len(mine),
        mine,
    )
    if shape == "chunks":
        return [chunks + b"0\r\n\r\n" + poison]
    if shape == "trailers":
        return [chunks + b"000;a=b\r\nx-cost: 1\r\nx-time: 2\r\n\r\n" + poison]
    return [chunks + b"0\r\n\r", b"\n" + poison]


@pytest.mark.parametrize("shape", ["length", "chunks", "trailers", "last chunk in two pieces"])
async def test_what_stands_behind_an_answer_is_nobodys_reply(library: Any, shape: str) -> None:
    answered = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            answered += 1
            for piece in _answer(answered, shape):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)  # or both come as one, which is another shape

    scheduled = penstock_with()
    with listening_apart(talk) as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with scheduled.async_client(library=library) as client:
            got = [(await client.post(url, json=BODY)).json()["id"] for _ in range(3)]
        with scheduled.client(library=library) as threads:
            got += [threads.post(url, json=BODY).json()["id"] for _ in range(3)]
    assert got == [f"mine-{number}" for number in range(1, 7)]
    assert_idle(scheduled)
