"""A stream is held back until its first content: what refuses before it is tried again."""

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import httpx2
import pytest

from penstock.core.events import Completed, Failed, Throttled
from penstock.integrations.http import prefix
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    REPLY,
    USAGE,
    Tape,
    assert_idle,
    only,
    penstock_with,
    scripted,
    scripted_sync,
    sse,
    token,
)
from tests.proxy.sidecars import eventually

LIBRARIES = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
STREAM = {**BODY, "stream": True}
GOOD = [sse(token("a")), sse(token("b"), USAGE, "[DONE]")]
OVERLOADED = {"error": {"type": "overloaded_error", "message": "busy"}}
BEAT, ROLE = b": keep-alive\n\n", sse({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
WAYS: dict[str, list[bytes]] = {
    "an error": [sse(OVERLOADED)],
    "a comment, then an error": [BEAT, sse(OVERLOADED)],
    "a role, then an error": [ROLE, BEAT, sse(OVERLOADED)],
    "an error in its choice": [
        sse({"choices": [{"index": 0, "delta": {"content": ""}, "error": {"code": 502}}]})
    ],
    "a choice that ends with an error": [
        sse({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]})
    ],
    "an error that only its name tells": [b'event: error\ndata: {"message": "it broke"}\n\n'],
    "its end mark": [sse("[DONE]")],
    "a comment, and nothing more": [BEAT],
    "nothing": [],
    "JSON's error": [json.dumps(OVERLOADED).encode()],
    "an error among lines of JSON": [b'{"error": "it broke"}\n', b'{"done": true}\n'],
}


def pieces_for(library: Any, pieces: list[bytes], *, sync: bool) -> Any:
    """Return a body that comes over a network, piece by piece."""

    class Sync(library.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield from pieces

    class Async(library.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

    return Sync() if sync else Async()


def streams(library: Any, stream: Any) -> Any:
    return library.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)


def script(library: Any, sick: list[bytes], times: int, *, sync: bool) -> Any:
    """Return a provider whose first answers are sick."""
    left = times

    def provider(_request: Any) -> Any:
        nonlocal left
        left -= 1
        return streams(library, pieces_for(library, GOOD if left < 0 else sick, sync=sync))

    return provider


async def asked(library: Any, scheduled: Any, provider: Any, *, sync: bool) -> tuple[int, bytes]:
    if sync:
        with scripted_sync(library, scheduled, provider) as client:
            with client.stream("POST", CHAT, json=STREAM) as reply:
                return reply.status_code, b"".join(reply.iter_bytes())
    async with scripted(library, scheduled, provider) as client:
        async with client.stream("POST", CHAT, json=STREAM) as reply:
            return reply.status_code, b"".join([piece async for piece in reply.aiter_bytes()])


@LIBRARIES
@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("way", WAYS)
async def test_what_refuses_before_its_first_content_is_tried_again(
    library: Any, sync: bool, way: str
) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    found = await asked(library, scheduled, script(library, WAYS[way], 1, sync=sync), sync=sync)

    assert found == (200, b"".join(GOOD))
    eventually(lambda: tape.of(Completed) != [])  # the clock's thread may have the turn
    assert len(tape.of(Throttled) + tape.of(Failed)) == 1
    assert tape.of(Completed) == [Completed(1, 2, 3, reported=True)]
    assert_idle(scheduled)


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
async def test_after_the_last_try_the_callers_sdk_hears_the_providers_words(sync: bool) -> None:
    sick = [BEAT, sse({"error": {"message": "it broke", "code": 500}})]
    scheduled = penstock_with()

    found = await asked(httpx2, scheduled, script(httpx2, sick, 99, sync=sync), sync=sync)

    assert found == (200, b"".join(sick))
    eventually(lambda: only(scheduled).in_flight == 0)
    assert_idle(scheduled)


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
async def test_an_error_behind_a_picture_is_passed_on(sync: bool) -> None:
    picture = {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}
    sick = [sse({"choices": [{"index": 0, "delta": picture}]}), sse(OVERLOADED)]
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    found = await asked(httpx2, scheduled, script(httpx2, sick, 1, sync=sync), sync=sync)

    assert found == (200, b"".join(sick))
    assert tape.of(Completed) == []
    assert_idle(scheduled)


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
async def test_what_the_caller_did_wrong_is_asked_once(sync: bool) -> None:
    sick = [BEAT, sse({"error": {"message": "no", "code": "invalid_prompt"}})]
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    found = await asked(httpx2, scheduled, script(httpx2, sick, 99, sync=sync), sync=sync)

    assert found == (200, b"".join(sick))
    assert [each.upstream_fault for each in tape.of(Failed)] == [False]
    assert_idle(scheduled)


@LIBRARIES
async def test_a_coroutine_hears_signs_of_life_soon_and_loses_nothing_behind_them(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "OPENING_S", 0.01)
    seen = asyncio.Event()

    class Slow(library.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield BEAT
            await seen.wait()
            for piece in GOOD:
                yield piece

    tape = Tape()
    scheduled = penstock_with(tape=tape)
    async with scripted(library, scheduled, lambda _: streams(library, Slow())) as client:
        async with client.stream("POST", CHAT, json=STREAM) as reply:
            pieces = reply.aiter_bytes()
            assert await anext(pieces) == BEAT
            seen.set()
            assert b"".join([piece async for piece in pieces]) == b"".join(GOOD)

    assert tape.of(Completed) == [Completed(1, 2, 3, reported=True)]
    assert_idle(scheduled)


@LIBRARIES
def test_a_thread_hears_signs_of_life_soon_and_loses_nothing_behind_them(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "OPENING_S", 0.01)
    seen = threading.Event()

    class Slow(library.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield BEAT
            assert seen.wait(20)
            yield from GOOD

    tape = Tape()
    scheduled = penstock_with(tape=tape)
    client = scripted_sync(library, scheduled, lambda _: streams(library, Slow()))
    with client.stream("POST", CHAT, json=STREAM) as reply:
        pieces = reply.iter_bytes()
        assert next(pieces) == BEAT
        seen.set()
        assert b"".join(pieces) == b"".join(GOOD)

    assert tape.of(Completed) == [Completed(1, 2, 3, reported=True)]
    assert_idle(scheduled)


@pytest.mark.parametrize("late", [True, False], ids=["once it passes", "while it is held back"])
async def test_a_caller_that_leaves_ends_the_stream(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "OPENING_S", 0.01 if late else 3600.0)
    begun, ended = asyncio.Event(), asyncio.Event()

    class Silent(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield BEAT
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    scheduled = penstock_with()

    async def ask() -> None:
        async with scripted(httpx2, scheduled, lambda _: streams(httpx2, Silent())) as client:
            async with client.stream("POST", CHAT, json=STREAM) as reply:
                async for _ in reply.aiter_bytes():
                    if late:
                        return

    call = asyncio.create_task(ask())
    await begun.wait()
    if not late:
        call.cancel()
    await asyncio.wait((call,))
    await ended.wait()
    assert_idle(scheduled)


@LIBRARIES
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("whole", [False, True], ids=["stream", "whole"])
async def test_what_the_inner_transport_has_read_is_read_again(
    library: Any, whole: bool, packed: bool
) -> None:
    content = json.dumps(REPLY).encode() if whole else b"".join(GOOD)
    headers = {"content-encoding": "gzip"} if packed else {}
    if not whole:
        headers["content-type"] = "text/event-stream"
    sent = [gzip.compress(content) if packed else content]

    def provider(_request: Any) -> Any:
        reply = library.Response(200, headers=headers, content=iter(sent))
        reply.read()
        return reply

    tape = Tape()
    scheduled = penstock_with(tape=tape)
    found = await asked(library, scheduled, provider, sync=True)

    assert found == (200, content)
    assert [each.prompt_tokens for each in tape.of(Completed)] == [3]
    assert_idle(scheduled)
