"""What was asked to be a stream passes as it comes, whatever its type says; so does sound."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import httpx2
import pytest

from penstock.core.events import Completed, Failed
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    USAGE,
    Tape,
    assert_idle,
    penstock_with,
    scripted,
    scripted_sync,
    sse,
    token,
)

pytestmark = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
FIRST, REST = sse(token("a")), sse(USAGE, "[DONE]")
SPEECH = CHAT.replace("chat/completions", "audio/speech")
NAMES = [
    "Text/Event-Stream; charset=utf-8", "application/json", "application/octet-stream", ""
]  # fmt: skip
ASKED = [(CHAT, {**BODY, "stream": True}, name, FIRST, REST) for name in NAMES] + [
    (SPEECH, {"model": "m", "voice": "v", "input": "hi"}, "audio/mpeg", b"ID3", b"rest")
]
EACH = pytest.mark.parametrize(("url", "body", "name", "first", "rest"), ASKED)


def answer(library: Any, name: str, stream: Any) -> Any:
    return library.Response(200, headers={"content-type": name} if name else {}, stream=stream)


@EACH
async def test_a_coroutine_has_each_piece_as_it_comes(
    library: Any, url: str, body: dict[str, Any], name: str, first: bytes, rest: bytes
) -> None:
    seen, tape = asyncio.Event(), Tape()

    class Pieces(library.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield first
            await seen.wait()
            yield rest

    scheduled = penstock_with(tape=tape)
    async with scripted(library, scheduled, lambda _: answer(library, name, Pieces())) as client:
        async with client.stream("POST", url, json=body) as reply:
            pieces = reply.aiter_bytes()
            assert await anext(pieces) == first
            seen.set()
            assert b"".join([piece async for piece in pieces]) == rest

    check(tape, url)
    assert_idle(scheduled)


@EACH
def test_a_thread_has_each_piece_as_it_comes(
    library: Any, url: str, body: dict[str, Any], name: str, first: bytes, rest: bytes
) -> None:
    seen, tape = threading.Event(), Tape()

    class Pieces(library.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield first
            assert seen.wait(20)
            yield rest

    scheduled = penstock_with(tape=tape)
    client = scripted_sync(library, scheduled, lambda _: answer(library, name, Pieces()))
    with client.stream("POST", url, json=body) as reply:
        pieces = reply.iter_bytes()
        assert next(pieces) == first
        seen.set()
        assert b"".join(pieces) == rest

    check(tape, url)
    assert_idle(scheduled)


def check(tape: Tape, url: str) -> None:
    (done,) = tape.of(Completed)
    assert done.output_tokens == (2 if url == CHAT else None)


@pytest.mark.parametrize("name", ["application/json", "text/html"])
def test_json_and_pages_in_place_of_a_stream_are_judged_whole(library: Any, name: str) -> None:
    content = b'{"error": {"code": 400}}' if "json" in name else b"<html>"
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    def provider(_request: Any) -> Any:
        return answer(library, name, library.ByteStream(content))

    client = scripted_sync(library, scheduled, provider)
    reply = client.post(CHAT, json={**BODY, "stream": True})

    assert reply.status_code == 400 if "json" in name else 502
    assert_idle(scheduled)


def test_a_login_page_is_asked_once_and_the_sdk_is_told_so(library: Any) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    def provider(_request: Any) -> Any:
        return library.Response(200, html="<html>Sign in</html>")

    reply = scripted_sync(library, scheduled, provider).post(CHAT, json=BODY)

    assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
    assert tape.of(Failed) == [Failed(1, retryable=False, upstream_fault=True)]
    assert_idle(scheduled)
