"""Limits that answers state, over real sockets: kept where they hold, and nowhere else."""

import pytest

from tests.proxy.sidecars import call, in_front_of, sidecar
from tests.proxy.test_relay import scripted


def stating(headers: str) -> bytes:
    lines = "".join(f"{line.strip()}\r\n" for line in headers.strip().splitlines())
    return f"HTTP/1.1 200 OK\r\n{lines}content-length: 2\r\n\r\n{{}}".encode()


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
