"""Readers of foreign bytes do ten times the work for ten times the bytes, and not a hundred times.

Work is counted, not timed: calls, and for each call of a method of bytes, texts and lists how much
it may have to look at. What an operator copies or a regular expression does is not seen.
"""

import gzip
import json
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from penstock.calls.endpoint import endpoint_like
from penstock.calls.facts import facts_of, references_of
from penstock.calls.hints import HintError, hints_of
from penstock.wire import jsonio
from penstock.wire.encoding import unpacked
from penstock.wire.endpoint import Kind
from penstock.wire.limits import limits_of
from penstock.wire.refusal import meaning_of
from penstock.wire.stream import StreamReader
from penstock.wire.usage_tap import usage_tap
from penstock.wire.verdict import verdict_of_reply
from penstock.wire.waits import retry_after_s
from penstock.wire.words import words_of_refusal

FEW, MANY = 400, 4000
MOST = 12.0
"""Ten, and what a reader looks at twice where a buffer ends; what goes back is near a hundred."""
AT_ONCE = ("append", "extend", "pop", "startswith", "endswith")
"""Methods that look at no more than they are given."""
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


def work(read: Callable[[bytes], object], data: bytes) -> int:
    """Return how much a reader has to do with it."""
    done = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal done
        done += event in ("call", "c_call")
        if event == "c_call" and getattr(arg, "__name__", "") not in AT_ONCE:
            of = getattr(arg, "__self__", None)
            if isinstance(of, bytes | bytearray | str | list | tuple):
                done += len(of)

    sys.setprofile(count)
    try:
        read(data)
    finally:
        sys.setprofile(None)
    return done


def pieces(feed: Callable[[bytes], object], data: bytes, step: int) -> None:
    for start in range(0, len(data), step):
        feed(data[start : start + step])


def streamed(step: int, coding: str = "") -> Callable[[bytes], object]:
    return lambda data: pieces(usage_tap(Kind.CHAT, coding, is_stream=True).feed, data, step)


def whole(step: int) -> Callable[[bytes], object]:
    return lambda data: pieces(usage_tap(Kind.CHAT, "", is_stream=False).feed, data, step)


def chat(messages: list[object]) -> bytes:
    return json.dumps({"model": "m", "messages": messages}).encode()


def facts(data: bytes) -> object:
    endpoint = endpoint_like("/v1/chat/completions")
    assert endpoint is not None
    return facts_of(endpoint, jsonio.loads(data))


def hints(data: bytes) -> object:
    try:
        return hints_of([tuple(line.split(b": ", 1)) for line in data.split(b"\n")])  # type: ignore[misc]
    except HintError as error:
        return error


def refusal(data: bytes) -> object:
    meaning = meaning_of(429, {"retry-after": "1"}, data, wall_now=0.0)
    return meaning, words_of_refusal(data)


def limits(data: bytes) -> object:
    text = data.decode()
    names = ("limit", "remaining", "reset")
    stated = {f"x-ratelimit-{name}-requests": text for name in names}
    stated |= {"ratelimit": text, "ratelimit-policy": text, "date": text}
    return limits_of("u", stated, model="m", wall_now=0.0), retry_after_s(
        {"retry-after": text, "retry-after-ms": text}, wall_now=0.0
    )


READERS: dict[str, tuple[Callable[[int], bytes], Callable[[bytes], object]]] = {
    "events, by 7 bytes": (lambda n: EVENT * (n // 10), streamed(7)),
    "events, by 64 kB": (lambda n: EVENT * n, streamed(65536)),
    "a line, by 7 bytes": (lambda n: b"data: " + b"x" * n, streamed(7)),
    "an event of many lines": (lambda n: b"data: x\n" * n + b"\n", streamed(1000)),
    "carriage returns": (lambda n: b"data: x\r\r" * n, streamed(64)),
    "comments": (lambda n: b": x\n\n" * n, streamed(1000)),
    "events of a gzip": (lambda n: gzip.compress(EVENT * n), streamed(64, "gzip")),
    "gzips of events": (lambda n: gzip.compress(EVENT) * n, streamed(1000, "gzip")),
    "tool calls": (
        lambda n: (
            b'data: {"choices":[{"index":0,"delta":{"tool_calls":['
            + b'{"index":0,"function":{"arguments":"x"}},' * n
            + b'{"index":0}]}}]}\n\n'
        ),
        lambda data: StreamReader(Kind.CHAT).feed(data),
    ),
    "a reply, by 7 bytes": (lambda n: b'{"x":"' + b"y" * n + b'","usage":{}}', whole(7)),
    "usages": (lambda n: b'{"usage":' * n, whole(1000)),
    "choices": (
        lambda n: b'{"choices":[' + b'{"message":{"content":"x"}},' * n + b'{"message":{}}]}',
        lambda data: verdict_of_reply(Kind.CHAT, 200, data),
    ),
    "gzips of a body": (
        lambda n: gzip.compress(b"x" * 100) * n,
        lambda data: unpacked(data, "gzip", at_most_bytes=1 << 30),
    ),
    "half emoji": (lambda n: b'{"a":"' + b"\\ud83d" * n + b'"}', jsonio.loads_object),
    "messages": (lambda n: chat([{"role": "user", "content": "hello"}] * n), facts),
    "parts of a message": (
        lambda n: chat([{"role": "user", "content": [{"type": "text", "text": "hi"}] * n}]),
        facts,
    ),
    "images": (
        lambda n: chat([{"role": "user", "content": [{"type": "image_url"}] * n}]),
        facts,
    ),
    "ids": (
        lambda n: json.dumps({"input": [{"type": "item_reference", "id": "msg_1"}] * n}).encode(),
        lambda data: references_of(jsonio.loads(data)),
    ),
    "headers": (lambda n: b"\n".join([b"x-penstock-tenant: a"] * n), hints),
    "a refusal's words": (
        lambda n: b'{"error":{"message":"%b"}}' % (b"try again in 1s. Limit 1, " * n),
        refusal,
    ),
    "limits in digits": (lambda n: b"1" * n, limits),
    "limits in spans": (lambda n: b"1m2s" * n, limits),
    "limits in lists": (lambda n: b'"a";r=1;t=1, ' * n, limits),
}


@pytest.mark.parametrize("name", READERS)
def test_ten_times_the_bytes_are_ten_times_the_work(name: str) -> None:
    make, read = READERS[name]
    read(make(FEW + 10))  # whatever is made once

    few, many = work(read, make(FEW)), work(read, make(MANY))

    assert many <= MOST * few
