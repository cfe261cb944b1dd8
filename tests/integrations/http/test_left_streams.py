"""Streams that are left by `break`, kept and not read, or read slowly."""

import asyncio
import contextvars
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import httpx2
import openai
import pytest

from penstock import Penstock
from penstock.core.events import Cancelled, Completed
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
from tests.virtual_loop import run_virtual

LIBRARIES = pytest.mark.parametrize("library", [httpx2, httpx], ids=lambda each: each.__name__)
HELLO: Any = [{"role": "user", "content": "hi"}]
PIECES = [sse(token(str(n))) for n in range(8)]
TEXT = "01234567"


@pytest.fixture
def no_collector() -> Iterator[None]:
    """The collector does not happen to come by."""
    gc.disable()
    yield
    gc.enable()


def streaming(library: Any) -> Any:
    class Both(library.AsyncByteStream, library.SyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in self:
                yield piece

        def __iter__(self) -> Iterator[bytes]:
            yield from PIECES
            yield sse(USAGE, "[DONE]")

    def provider(_request: Any) -> Any:
        return library.Response(200, headers={"content-type": "text/event-stream"}, stream=Both())

    return provider


def asks(scheduled: Penstock, library: Any) -> openai.AsyncOpenAI:
    http_client = scripted(library, scheduled, streaming(library))
    return openai.AsyncOpenAI(api_key="k", base_url="https://m/v1", http_client=http_client)


@LIBRARIES
async def test_an_async_stream_left_by_break_gives_its_slot_to_whoever_waits(
    library: Any, no_collector: None
) -> None:
    scheduled = penstock_with(window=2)
    client = asks(scheduled, library)

    async def look_and_leave() -> None:
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        async for _chunk in stream:
            break

    async with asyncio.timeout(60):
        await asyncio.gather(*(look_and_leave() for _ in range(8)))


@LIBRARIES
def test_a_sync_stream_left_by_break_gives_its_slot_to_whoever_waits(
    library: Any, no_collector: None
) -> None:
    scheduled = penstock_with(window=2)
    http_client = scripted_sync(library, scheduled, streaming(library))
    client = openai.OpenAI(
        api_key="k", base_url="https://m/v1", http_client=http_client, max_retries=0
    )

    def look_and_leave() -> None:
        stream = client.chat.completions.create(
            model="m",
            messages=HELLO,
            stream=True,
            extra_headers={"x-penstock-deadline-ms": "60000"},
        )
        for _chunk in stream:
            break

    for _ in range(8):  # each in a context of its own, as calls of different threads are
        contextvars.Context().run(look_and_leave)


def kept_unread(tape: Tape, pause_s: float) -> tuple[str, float]:
    """Read a stream with a pause after each piece, while another call waits; say when that went."""

    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        scheduled = penstock_with(window=1, tape=tape, clock=loop, unread_s=3.0)
        client = asks(scheduled, httpx2)
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)

        async def other() -> float:
            await scripted(httpx2, scheduled, streaming(httpx2), base_url="https://m/v1").post(
                "/chat/completions", json=BODY
            )
            return loop.time()

        waits = asyncio.create_task(other(), context=contextvars.Context())
        text = ""
        async for chunk in stream:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            await asyncio.sleep(pause_s)
        sent_at = await waits
        assert_idle(scheduled)
        return text, sent_at

    return run_virtual(main())


def test_a_reply_that_nobody_reads_loses_its_slot_and_can_be_read_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tape = Tape()
    text, sent_at = kept_unread(tape, pause_s=10.0)
    assert text == TEXT
    assert 3.0 <= sent_at <= 3.2
    assert len(tape.of(Cancelled)) == 1
    assert caplog.text.count("nobody has read from a streamed reply for 3 s") == 1


def test_a_slow_reader_keeps_its_slot_to_the_end() -> None:
    tape = Tape()
    text, sent_at = kept_unread(tape, pause_s=2.0)
    assert text == TEXT
    assert sent_at >= 8 * 2.0
    assert not tape.of(Cancelled)
    assert [each.output_tokens for each in tape.of(Completed)] == [2, 2]


def test_while_nobody_waits_nothing_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(gc, "collect", lambda *generation: asked.append(generation))

    async def main() -> None:
        scheduled = penstock_with(window=1, clock=asyncio.get_running_loop())
        client = scripted(httpx2, scheduled, streaming(httpx2))
        async with client.stream("POST", CHAT, json=BODY):
            await asyncio.sleep(20.0)

    run_virtual(main())
    assert asked == []


@pytest.mark.parametrize("unread_s", [0, -1, float("nan")])
def test_an_impossible_limit_is_refused(unread_s: float) -> None:
    with pytest.raises(ValueError, match="unread_s"):
        Penstock(unread_s=unread_s)
