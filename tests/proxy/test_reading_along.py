"""Whatever reads along raises, the bytes go through: logged once, counted, and the slot is free."""

import gzip
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from penstock.proxy import exchange, failures, streamed
from penstock.wire import usage_tap
from penstock.wire.endpoint import Kind
from tests.proxy.sidecars import HELLO, call, in_front_of, sidecar
from tests.proxy.test_relay import Scripted, scripted

STREAM = {**HELLO, "stream": True}
EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)
WHOLE = b'{"choices":[{"message":{"content":"x"}}],"usage":{"completion_tokens":3}}'
SSE = b"content-type: text/event-stream\r\n"
JSON = b"content-type: application/json\r\n"
LIMITS = b"x-ratelimit-remaining-requests: 5\r\n"
SECRET = "secret of a caller"


@cache
def bomb() -> bytes:
    return gzip.compress(b"\0" * 200_000_000, 1)


class Broken:
    """A reader that fails on everything."""

    started = finished = False
    error = None

    def feed(self, _chunk: bytes) -> None:
        raise KeyError(SECRET)


def _broken(*_words: object, **_more: object) -> Any:
    raise KeyError(SECRET)


def _reply(head: bytes, body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status, head, len(body), body)


def _to(upstream: Scripted) -> str:
    return in_front_of(f"http://127.0.0.1:{upstream.port}")


@pytest.mark.parametrize(
    ("module", "name", "fault", "reader", "body"),
    [
        (streamed, "usage_tap", lambda *_words, **_more: Broken(), "stream", EVENTS),
        (streamed, "usage_tap", _broken, "stream", EVENTS),
        (exchange, "verdict_of_reply", _broken, "reply", WHOLE),
        (failures, "meaning_of", _broken, "refusal", WHOLE),
        (exchange, "limits_of", _broken, "limits", WHOLE),
    ],
    ids=["tap", "no tap", "verdict", "refusal", "limits"],
)
def test_a_reader_that_raises_costs_its_own_figure(
    module: Any, name: str, fault: Any, reader: str, body: bytes,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, name, fault)
    status = b"400 Bad Request" if reader == "refusal" else b"200 OK"
    streams = reader == "stream"
    answer = _reply((SSE if streams else JSON) + LIMITS, body, status)
    with scripted([answer]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        found = call(proxy.port, body=STREAM if streams else HELLO)
        page = proxy.metrics()

    assert (found.status, found.body) == (int(status[:3]), body)
    assert f'penstock_reading_faults_total{{reader="{reader}"}} 1.0' in page
    assert caplog.text.count(f"KeyError while reading along ({reader})") == 1
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (SSE, b'data: {"choices":[{"index":0,"delta":{"content":"so \\ud83d"}}]}\n\n' + EVENTS),
        (SSE + b"ratelimit: ;\r\n", EVENTS),
        (JSON + b'ratelimit: ;\r\nratelimit-policy: "\r\n', WHOLE),
        (JSON + LIMITS + b"x-ratelimit-reset-requests: " + b"9" * 16_000 + b"\r\n", WHOLE),
        (SSE + b"content-encoding: gzip\r\n", bomb),
        (SSE + b"content-encoding: gzip\r\n", b"no gzip"),
    ],
    ids=["half an emoji", "RateLimit", "RateLimit whole", "digits", "bomb", "no gzip"],
)
def test_odd_bytes_go_through_as_they_came(head: bytes, body: bytes | Callable[[], bytes]) -> None:
    body = body if isinstance(body, bytes) else body()
    with scripted([_reply(head, body)]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        found = call(proxy.port, body=STREAM if head.startswith(SSE) else HELLO)
        page = proxy.metrics()

    assert (found.status, found.body) == (200, body)
    assert "penstock_reading_faults_total{" not in page


def test_of_a_bomb_a_bounded_part_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Counting(Broken):
        def __init__(self, _kind: Kind) -> None:
            """Count what is read."""

        def feed(self, chunk: bytes) -> None:
            read.append(len(chunk))

    monkeypatch.setattr(usage_tap, "StreamReader", Counting)
    tap = usage_tap.usage_tap(Kind.CHAT, "gzip", is_stream=True)
    for at in range(0, len(bomb()), 65_536):
        tap.feed(bomb()[at : at + 65_536])

    assert 0 < sum(read) <= usage_tap.INFLATED_MAX_BYTES < 100_000_000
    assert max(read) <= 1 << 18
