"""A body that does not end holds neither the slot of an error nor the memory of a reply."""

import gzip
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import httpx2
import pytest
from backports import zstd

from penstock.core.events import Completed
from penstock.integrations.http import prefix
from penstock.wire.refusal import ERROR_BYTES
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    REPLY,
    Tape,
    assert_idle,
    only,
    penstock_with,
    scripted,
    scripted_sync,
)

pytestmark = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
CHUNK = b" " * 4096
WHOLE = json.dumps(REPLY).encode() + CHUNK * 8


class Endless:
    """An error's body without an end."""

    def __init__(self) -> None:
        self.given = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.given += 1
            assert self.given * len(CHUNK) < 2 * ERROR_BYTES
            yield CHUNK


def answers(library: Any, first: Any) -> Any:
    waiting = [library.Response(503, content=first)]
    return lambda _: waiting.pop() if waiting else library.Response(200, json=REPLY)


async def test_an_error_without_an_end_is_judged_by_its_beginning(library: Any) -> None:
    scheduled, error = penstock_with(), Endless()

    async def body() -> AsyncIterator[bytes]:
        for chunk in error:
            yield chunk

    async with scripted(library, scheduled, answers(library, body())) as client:
        assert (await client.post(CHAT, json=BODY)).json() == REPLY
    assert_idle(scheduled)


def test_an_error_without_an_end_is_judged_by_its_beginning_in_a_thread(library: Any) -> None:
    scheduled, error = penstock_with(), Endless()
    with scripted_sync(library, scheduled, answers(library, iter(error))) as client:
        assert client.post(CHAT, json=BODY).json() == REPLY
    assert_idle(scheduled)


def test_an_error_that_comes_drop_by_drop_is_judged_in_time(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "ERROR_S", -1.0)
    scheduled, error = penstock_with(), Endless()
    with scripted_sync(library, scheduled, answers(library, iter(error))) as client:
        assert client.post(CHAT, json=BODY).json() == REPLY
    assert error.given == 1


async def test_a_reply_too_long_to_be_judged_passes_as_it_comes(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "PLAIN_MAX_BYTES", 10_000)
    scheduled, given = penstock_with(), 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal given
        for start in range(0, len(WHOLE), len(CHUNK)):
            given += 1
            yield WHOLE[start : start + len(CHUNK)]

    async with (
        scripted(library, scheduled, lambda _: library.Response(200, content=body())) as client,
        client.stream("POST", CHAT, json=BODY) as response,
    ):
        assert given == 3
        assert only(scheduled).in_flight == 1
        assert b"".join([chunk async for chunk in response.aiter_raw()]) == WHOLE
    assert_idle(scheduled)


def test_a_reply_too_long_to_be_judged_passes_as_it_comes_in_a_thread(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "PLAIN_MAX_BYTES", 10_000)
    scheduled = penstock_with()
    pieces = (WHOLE[start : start + len(CHUNK)] for start in range(0, len(WHOLE), len(CHUNK)))
    with scripted_sync(
        library, scheduled, lambda _: library.Response(200, content=pieces)
    ) as client:
        assert client.post(CHAT, json=BODY).content == WHOLE
    assert_idle(scheduled)


def test_a_packed_reply_too_long_to_be_judged_passes_as_it_came(library: Any) -> None:
    long = json.dumps(REPLY).encode() + b" " * 20_000_000
    packed = gzip.compress(long, 1)
    scheduled, asked = penstock_with(), 0

    def script(_request: Any) -> Any:
        nonlocal asked
        asked += 1
        return library.Response(200, content=iter([packed]), headers={"content-encoding": "gzip"})

    with scripted_sync(library, scheduled, script) as client:
        reply = client.post(CHAT, json=BODY)
    assert (reply.status_code, reply.content == long, asked) == (200, True, 1)
    assert_idle(scheduled)


def test_a_reply_of_very_many_values_passes_as_it_came_and_its_usage_is_read(library: Any) -> None:
    flood = b'{"choices":[' + b"[]," * 1_100_000 + b'1],"usage":{"completion_tokens":7}}'
    tape, asked = Tape(), 0

    def script(_request: Any) -> Any:
        nonlocal asked
        asked += 1
        return library.Response(200, content=iter([flood]))

    scheduled = penstock_with(tape=tape)
    with scripted_sync(library, scheduled, script) as client:
        reply = client.post(CHAT, json=BODY)
    assert (reply.status_code, reply.content == flood, asked) == (200, True, 1)
    assert [each.output_tokens for each in tape.of(Completed)] == [7]
    assert_idle(scheduled)


def breaking(library: Any, content: bytes) -> Iterator[bytes]:
    """Yield what comes before the connection breaks."""
    yield content
    raise library.ReadError("reset")


@pytest.mark.parametrize("status", [200, 429, 503])
async def test_what_breaks_off_is_sent_again(library: Any, status: int) -> None:
    scheduled, waiting = penstock_with(), [library.Response]

    async def body() -> AsyncIterator[bytes]:
        for piece in breaking(library, b'{"choices": '):
            yield piece

    def script(_: Any) -> Any:
        if waiting:
            return waiting.pop()(status, headers={"retry-after": "0"}, content=body())
        return library.Response(200, json=REPLY)

    async with scripted(library, scheduled, script) as client:
        assert (await client.post(CHAT, json=BODY)).json() == REPLY
    assert_idle(scheduled)


def test_half_of_a_packed_error_is_told_in_plain(library: Any) -> None:
    scheduled, said = penstock_with(), b'{"error": "' + os.urandom(500_000).hex().encode()
    packed, headers = zstd.compress(said), {"content-encoding": "zstd", "content-length": "900000"}

    def script(_: Any) -> Any:
        half = breaking(library, packed[: len(packed) // 2])
        return library.Response(400, headers=headers, content=half)

    with scripted_sync(library, scheduled, script) as client:
        answer = client.post(CHAT, json=BODY)
    assert answer.status_code == 400
    assert len(answer.content) == int(answer.headers["content-length"]) > 100_000
    assert said.startswith(answer.content)
    assert_idle(scheduled)


@contextmanager
def silent_after(begins: bytes) -> Iterator[str]:
    """Begin an answer and say no more, until the caller leaves; yield the URL."""

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.recv(65536)
            connection.sendall(begins)
            connection.recv(1)
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/chat/completions"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


BEGUN = b'HTTP/1.1 400 No\r\ncontent-length: 99\r\n\r\n{"error'


async def test_an_error_that_falls_silent_is_judged_in_time(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "ERROR_S", 0.01)
    scheduled = penstock_with()
    with silent_after(BEGUN) as url:
        async with scheduled.async_client(library=library.__name__, timeout=None) as client:
            answer = await client.post(url, json=BODY)
        with scheduled.client(library=library.__name__, timeout=60.0) as client:
            again = client.post(url, json=BODY)
    assert (answer.status_code, answer.content) == (400, b'{"error')
    assert (again.status_code, again.content) == (400, b'{"error')
    assert_idle(scheduled)
