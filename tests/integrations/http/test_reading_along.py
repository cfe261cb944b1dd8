"""Whatever reads along raises, the reply goes through; it is logged once and counted."""

import asyncio
import gzip
import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest

import penstock
from penstock import Penstock
from penstock.core.events import Completed, Throttled
from penstock.integrations.http import attempt, plan, prefix
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

STREAM = sse(token("a"), token("b"), USAGE, "[DONE]")
SECRET = "secret of a caller"
EVENTS = {"content-type": "text/event-stream"}
WHOLE = json.dumps(REPLY).encode()
OVERLOADED = {"error": {"type": "overloaded_error", "message": "busy"}}


class Broken:
    """A reader that fails on everything."""

    def feed(self, _chunk: bytes) -> None:
        raise KeyError(SECRET)


def _broken(*_words: object, **_more: object) -> Any:
    raise KeyError(SECRET)


def _asked(library: Any, scheduled: Penstock, script: Callable[[Any], Any], *, sync: bool) -> Any:
    """Return the second of two replies to the same call, read whole."""
    if sync:
        with scripted_sync(library, scheduled, script) as client:
            client.post(CHAT, json=BODY)
            return client.post(CHAT, json=BODY)

    async def ask() -> Any:
        async with scripted(library, scheduled, script) as client:
            await client.post(CHAT, json=BODY)
            return await client.post(CHAT, json=BODY)

    return asyncio.run(ask())


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("library", [httpx2, httpx], ids=lambda each: each.__name__)
@pytest.mark.parametrize(
    ("module", "name", "fault", "reader"),
    [
        (prefix, "usage_tap", _broken, "stream"),
        (prefix, "usage_tap", lambda *_words, **_more: Broken(), "stream"),
        (attempt, "verdict_of_reply", _broken, "reply"),
        (attempt, "meaning_of", _broken, "refusal"),
        (attempt, "limits_of", _broken, "limits"),
        (plan, "facts_of", _broken, "request"),
    ],
    ids=["no tap", "tap", "verdict", "refusal", "limits", "request"],
)
def test_a_reader_that_raises_costs_its_own_figure(
    module: Any, name: str, fault: Any, reader: str, library: Any, sync: bool,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, name, fault)
    status = 400 if reader == "refusal" else 200
    body = STREAM if reader == "stream" else WHOLE
    headers = {"x-ratelimit-remaining-requests": "5", **(EVENTS if reader == "stream" else {})}
    scheduled = penstock_with()

    def provider(_request: Any) -> Any:
        return library.Response(status, headers=headers, stream=library.ByteStream(body))

    found = _asked(library, scheduled, provider, sync=sync)

    assert (found.status_code, found.content) == (status, body)
    assert scheduled.reading_faults == {reader: 2}
    assert caplog.text.count(f"KeyError while reading along ({reader})") == 1
    assert SECRET not in caplog.text
    assert_idle(scheduled)


def test_an_observer_a_predictor_and_a_usage_hook_that_raise_stop_no_reply() -> None:
    class Blind:
        event = action = predict = staticmethod(_broken)

    scheduled = Penstock(observers=[Blind()], predictor=Blind(), tracer=None)
    found = _asked(httpx2, scheduled, lambda _r: httpx2.Response(200, json=REPLY), sync=True)

    @penstock.scheduled(penstock=scheduled, usage=_broken)
    def ask() -> str:
        return "paid for"

    assert found.json() == REPLY
    assert ask() == "paid for"
    assert scheduled.reading_faults["usage"] == 1
    assert_idle(scheduled)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (EVENTS, b'data: {"choices":[{"index":0,"delta":{"content":"so \\ud83d"}}]}\n\n' + STREAM),
        ({**EVENTS, "RateLimit": ";"}, STREAM),
        ({"RateLimit": ";", "RateLimit-Policy": '"'}, WHOLE),
        ({"x-ratelimit-limit-tokens": "10", "x-ratelimit-reset-tokens": "9" * 16_000}, WHOLE),
        ({**EVENTS, "x-ratelimit-reset-requests": "1" * 16_000 + "x"}, STREAM),
        ({**EVENTS, "content-encoding": "gzip"}, gzip.compress(b"\0" * 80_000_000, 1)),
        ({**EVENTS, "content-encoding": "gzip"}, b"no gzip"),
    ],
    ids=["half an emoji", "RateLimit", "RateLimit whole", "digits", "digits x", "bomb", "no gzip"],
)
def test_odd_bytes_go_through_as_they_came(headers: dict[str, str], body: bytes) -> None:
    scheduled = penstock_with()
    passed: list[bytes] = []

    def provider(_request: Any) -> Any:
        return httpx2.Response(200, headers=headers, stream=httpx2.ByteStream(body))

    with (
        scripted_sync(httpx2, scheduled, provider) as client,
        client.stream("POST", CHAT, json=BODY) as found,
    ):
        passed.extend(found.iter_raw())
    assert b"".join(passed) == body
    assert scheduled.reading_faults == {}
    assert_idle(scheduled)


def test_an_overload_late_in_a_stream_is_one_for_the_scheduler() -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)
    late = sse(token("a"), OVERLOADED)
    found = _asked(
        httpx2,
        scheduled,
        lambda _request: httpx2.Response(200, headers=EVENTS, stream=httpx2.ByteStream(late)),
        sync=True,
    )

    assert found.content == late
    assert tape.of(Completed) == []
    assert tape.of(Throttled)
    assert not any(event.retryable for event in tape.of(Throttled))
    assert_idle(scheduled)


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("number", [10**400, -1, "7", math.nan])
@pytest.mark.parametrize("streams", [True, False])
def test_a_count_of_tokens_that_is_none_is_ignored_and_counted(
    number: Any, *, streams: bool, sync: bool
) -> None:
    usage = {"prompt_tokens": number, "completion_tokens": 7}
    text = json.dumps({**REPLY, "usage": usage})
    if streams:
        text = f"data: {json.dumps(token('a'))}\n\ndata: {text}\n\ndata: [DONE]\n\n"
    scheduled = penstock_with()
    headers = EVENTS if streams else {"content-type": "application/json"}
    _asked(
        httpx2,
        scheduled,
        lambda _request: httpx2.Response(200, content=text, headers=headers),
        sync=sync,
    )
    assert only(scheduled).ignored_numbers == 2


def test_a_count_of_tokens_of_an_sdks_object_that_is_none_is_ignored_and_counted() -> None:
    scheduled = penstock_with()

    @penstock.scheduled(penstock=scheduled)
    def ask() -> Any:
        return SimpleNamespace(usage=SimpleNamespace(prompt_tokens=-1, completion_tokens=None))

    ask()
    assert only(scheduled).ignored_numbers == 1
