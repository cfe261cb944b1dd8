"""Limits that answers state, over real sockets: kept where they hold, and nowhere else."""

import json

import pytest

from tests.proxy.sidecars import (
    GOOD,
    HELLO,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)
from tests.proxy.test_relay import scripted


def stating(headers: str) -> bytes:
    lines = "".join(f"{line.strip()}\r\n" for line in headers.strip().splitlines())
    head = f"HTTP/1.1 200 OK\r\n{lines}content-length: {len(GOOD)}\r\n\r\n"
    return head.encode() + GOOD


@pytest.mark.parametrize(
    "headers",
    [
        "ratelimit-limit: 2\nratelimit-remaining: 1\nratelimit-reset: 1",
        "ratelimit-limit: 2, 2;w=1\nratelimit-remaining: 2\nratelimit-reset: 1",
        'ratelimit-policy: "a";q=2;w=1\nratelimit: "a";r=2;t=1',
        "x-ratelimit-limit: 2\nx-ratelimit-remaining: 1\nx-ratelimit-reset: 3000",
    ],
)
def test_a_gateways_limit_a_second_is_not_taken_for_one_a_minute(headers: str) -> None:
    with scripted([stating(headers)]) as upstream:
        upstream.go(10)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            # Two a minute would hold the third back for longer than `call` waits.
            assert [call(proxy.port).status for _ in range(5)] == [200] * 5


def test_what_a_small_model_may_have_does_not_throttle_a_large_one() -> None:
    tight = "x-ratelimit-limit-requests: 1\nx-ratelimit-remaining-requests: 0"
    wide = "x-ratelimit-limit-requests: 6000\nx-ratelimit-remaining-requests: 5999"
    with scripted([]) as upstream:
        upstream.go(10)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            for model, stated in [("big", wide), ("small", tight), *[("big", wide)] * 3]:
                upstream.pieces = [stating(stated)]
                assert call(proxy.port, body={**HELLO, "model": model}).status == 200
            with connect(proxy.port) as caller:
                caller.sendall(raw_request({**HELLO, "model": "small"}))
                eventually(lambda: proxy.snapshot().waiting == 1)
                assert call(proxy.port, body={**HELLO, "model": "big"}).status == 200
    assert [json.loads(each.split(b"\r\n\r\n", 1)[1])["model"] for each in upstream.requests] == [
        "big", "small", "big", "big", "big", "big",
    ]  # fmt: skip


def test_what_the_configuration_states_for_a_model_holds_for_it_alone() -> None:
    limits = '[upstreams.model_limits."small"]\nrequests_per_min = 1'
    with scripted([stating("")]) as upstream:
        upstream.go(10)
        url = f"http://127.0.0.1:{upstream.port}"
        with sidecar(in_front_of(url, upstream=limits)) as proxy:
            small, big = {**HELLO, "model": "small"}, {**HELLO, "model": "big"}
            assert call(proxy.port, body=small).status == 200
            with connect(proxy.port) as caller:
                caller.sendall(raw_request(small))
                eventually(lambda: proxy.snapshot().waiting == 1)
                assert [call(proxy.port, body=big).status for _ in range(3)] == [200] * 3
                assert proxy.snapshot().waiting == 1
