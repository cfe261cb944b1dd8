"""What a provider states and is no number is ignored, and counted, wherever it stands."""

import json

import pytest

from tests.proxy.sidecars import GOOD, HELLO, call, in_front_of, sidecar
from tests.proxy.test_relay import InTurn, scripted

NONE = ["1" + "0" * 400, "-1", "1e99", "NaN", "-Infinity", '"7"', "true", "[]", "7.5"]
"""What is no count of tokens, as JSON and what Python writes in place of it."""
EVENT = 'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'


def answer(
    body: str, *, status: int = 200, head: str = "", kind: str = "application/json"
) -> bytes:
    return (
        f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{head}"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


def ignored_of(said: bytes, *, streams: bool = False) -> float:
    """Return how many numbers a sidecar has ignored once this was answered."""
    with scripted([said]) as upstream:
        upstream.go()
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            assert call(proxy.port, body={**HELLO, "stream": streams}).status == 200
            (line,) = [
                each
                for each in proxy.metrics().splitlines()
                if each.startswith("penstock_ignored_numbers_total ")
            ]
    return float(line.split()[1])


@pytest.mark.parametrize("number", NONE)
@pytest.mark.parametrize("streams", [False, True])
def test_a_count_of_tokens_that_is_none_is_ignored_and_counted(
    number: str, *, streams: bool
) -> None:
    usage = f'{{"prompt_tokens":{number},"completion_tokens":{number}}}'
    if streams:
        text = f'{EVENT}data: {{"choices":[],"usage":{usage}}}\n\ndata: [DONE]\n\n'
        said = answer(text, kind="text/event-stream")
    else:
        said = answer(f'{{"choices":[{{"message":{{"content":"x"}}}}],"usage":{usage}}}')
    assert ignored_of(said, streams=streams) == 2


@pytest.mark.parametrize(
    ("head", "count"),
    [
        ("x-ratelimit-limit-requests: -1\r\nx-ratelimit-remaining-requests: nan\r\n", 2),
        ("x-ratelimit-limit-tokens: 1e999\r\nx-ratelimit-reset-tokens: soon\r\n", 2),
        ("anthropic-ratelimit-output-tokens-limit: 0x10\r\n", 1),
        ('ratelimit-policy: "a";q=-2;w=1\r\n', 1),
        ("ratelimit-policy: 2;w=x\r\n", 1),
        ("ratelimit-limit: -2\r\nratelimit-remaining: y\r\nratelimit-reset: z\r\n", 3),
        ("x-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 59\r\n", 0),
        ("ratelimit: ;\r\nratelimit-policy: burst\r\n", 0),
    ],
)
def test_a_limit_that_is_none_is_ignored_and_counted(head: str, count: int) -> None:
    assert ignored_of(answer(GOOD.decode(), head=head)) == count


@pytest.mark.parametrize(
    ("head", "error"),
    [
        ("retry-after: -1\r\n", {}),
        ("retry-after-ms: inf\r\n", {}),
        ("", {"details": [{"retryDelay": "x"}]}),
        ("", {"metadata": {"headers": {"X-RateLimit-Reset": "nan"}}}),
    ],
)
def test_a_wait_that_is_none_is_ignored_and_counted(head: str, error: dict[str, object]) -> None:
    busy = answer(json.dumps({"error": {"message": "busy", **error}}), status=503, head=head)
    with scripted(InTurn([busy, answer(GOOD.decode())])) as upstream:
        upstream.go(2)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            assert call(proxy.port).status == 200
            assert proxy.snapshot().ignored_numbers == 1
