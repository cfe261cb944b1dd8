"""An upstream that refuses, breaks, stalls or lies: who learns what, and what is tried again."""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from backports import zstd

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    CHAT,
    GOOD_REPLY,
    HELLO,
    SidecarThread,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)
from tests.proxy.test_relay import InTurn, scripted

STREAM = {**HELLO, "stream": True}
HASTY = "first_byte_timeout_s = 0.3\nidle_timeout_s = 0.3"


def _seen(mock: MockServer) -> int:
    return int(mock.stats()["requests"].get(CHAT, 0))


def test_a_reset_before_the_first_byte_is_tried_again_and_then_told(
    proxy: SidecarThread, mock: MockServer
) -> None:
    before = _seen(mock)

    reply = call(proxy.port, headers={"x-mock-fault": "reset_at_once"})

    assert reply.status == 502
    assert reply.json()["error"]["code"] == "upstream_broken"
    assert reply.headers["x-penstock-decision"] == "refused:upstream"
    assert _seen(mock) > before + 1
    eventually(proxy.idle)


def test_a_reset_in_mid_stream_is_never_sent_twice_and_seen_by_the_caller(
    proxy: SidecarThread, mock: MockServer
) -> None:
    before = _seen(mock)
    with connect(proxy.port) as caller:
        caller.sendall(
            raw_request(STREAM, headers={"x-mock-fault": "reset", "x-mock-output-tokens": "500"})
        )
        got = b""
        while data := caller.recv(65536):
            got += data

    assert b"data:" in got
    assert not got.endswith(b"0\r\n\r\n")
    assert _seen(mock) == before + 1
    eventually(proxy.idle)


def test_a_stream_that_stalls_is_cut_after_the_configured_silence(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url, upstream="idle_timeout_s = 0.3")) as proxy:
        with connect(proxy.port) as caller:
            caller.sendall(
                raw_request(STREAM, headers={"x-mock-fault": "stall", "x-mock-output-tokens": "99"})
            )
            got = b""
            while data := caller.recv(65536):
                got += data
        assert b"data:" in got
        assert not got.endswith(b"0\r\n\r\n")
        eventually(proxy.idle)


@pytest.mark.parametrize("streams", [False, True])
def test_silence_is_not_failure_and_nothing_is_sent_again(mock: MockServer, streams: bool) -> None:
    before = _seen(mock)
    with sidecar(in_front_of(mock.url, upstream=HASTY)) as proxy:
        body = {**HELLO, "stream": streams}
        reply = call(proxy.port, body=body, headers={"x-mock-fault": "slow_first_token:60"})
        assert (reply.status, reply.headers["x-should-retry"]) == (504, "false")
        assert "x-penstock-safe-to-repeat" in reply.json()["error"]["message"]
        eventually(proxy.idle)
    assert _seen(mock) == before + 1


@pytest.mark.parametrize(
    "mark", [{"idempotency-key": "a1"}, {"x-penstock-safe-to-repeat": "true"}], ids=str
)
def test_what_is_marked_as_safe_to_repeat_is_sent_again_after_silence(
    mock: MockServer, mark: dict[str, str]
) -> None:
    before = _seen(mock)
    patient = '[[classes]]\nname = "all"\nttl_s = 4\n'
    with sidecar(in_front_of(mock.url, upstream=HASTY, classes=patient)) as proxy:
        reply = call(proxy.port, headers={"x-mock-fault": "slow_first_token:60", **mark})
        assert reply.status == 504
        eventually(proxy.idle)
    assert _seen(mock) > before + 1


def test_a_broken_event_is_relayed_as_it_is() -> None:
    text = b'data: {"choices": [\n\ndata: [DONE]\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    with scripted([head % len(text) + text]) as upstream:
        upstream.go()
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            assert call(proxy.port, body=STREAM).body == text
            eventually(proxy.idle)


def test_half_a_reply_is_none_and_tried_again(proxy: SidecarThread, mock: MockServer) -> None:
    before = _seen(mock)

    reply = call(proxy.port, headers={"x-mock-fault": "truncate"})

    assert (reply.status, reply.json()["error"]["code"]) == (502, "upstream_broken")
    assert _seen(mock) > before + 1
    page = call(proxy.admin_port, "/metrics", method="GET", body=None).body.decode()
    assert 'outcome="not_good"' in page
    assert "penstock_output_tokens_total{" not in page  # unknown is not zero


def test_half_of_a_packed_error_is_told_in_plain() -> None:
    said = b'{"error": "' + os.urandom(300_000).hex().encode()
    packed = zstd.compress(said)
    head = b"HTTP/1.1 400 No\r\ncontent-encoding: zstd\r\ncontent-length: %d\r\n\r\n" % len(packed)
    with scripted([head + packed[: len(packed) // 2]], close=True) as upstream:
        upstream.go()
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            reply = call(proxy.port)
    assert reply.status == 400
    assert "content-encoding" not in reply.headers
    assert len(reply.body) > 1000
    assert said.startswith(reply.body)


def test_bytes_that_are_no_http_are_a_502() -> None:
    with scripted([b"SSH-2.0-OpenSSH\r\n"]) as upstream:
        upstream.go(50)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            assert call(proxy.port).status == 502
            eventually(proxy.idle)


def test_nobody_listening_is_a_502() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with sidecar(in_front_of(f"http://127.0.0.1:{port}")) as proxy:
        reply = call(proxy.port)
        assert reply.status == 502
        assert reply.json()["error"]["code"] == "upstream_unreachable"
        eventually(proxy.idle)


def test_an_upstream_that_recovers_serves_the_retry() -> None:
    ok = GOOD_REPLY
    down = b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
    with scripted(InTurn([down, ok])) as upstream:
        upstream.go(10)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            assert call(proxy.port).status == 200
    assert len(upstream.requests) == 2
    assert upstream.requests[0] == upstream.requests[1]


def test_a_caller_with_time_never_sees_the_429() -> None:
    ok = GOOD_REPLY
    busy = b"HTTP/1.1 429 No\r\nretry-after-ms: 150\r\ncontent-length: 2\r\n\r\n{}"
    with scripted(InTurn([busy, ok])) as upstream:
        upstream.go(10)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            reply = call(proxy.port)
    assert (reply.status, len(upstream.requests)) == (200, 2)
    assert (
        int(reply.headers["x-penstock-queue-ms"]) >= 150
    )  # it waited as long as the provider asked, in the queue


def test_a_crowd_at_a_rate_limited_provider_is_paced_not_refused() -> None:
    limited = {
        "model": "rate_limited",
        "inner": {"model": "slots", "slots": 8, "tokens_per_s": 5000.0, "ttft_s": 0.0},
        "rpm": 600,
        "burst_s": 1.0,
        "dialect": "openai",
    }
    with (
        MockServer(MockSettings(provider=limited)) as mock,
        sidecar(in_front_of(mock.url)) as proxy,
        ThreadPoolExecutor(24) as crowd,
    ):
        replies = list(
            crowd.map(lambda _: call(proxy.port, headers={"x-mock-output-tokens": "2"}), range(24))
        )
        refused = sum(mock.stats()["refused"].values())

    assert [reply.status for reply in replies] == [200] * 24
    # The first refusals teach the limit; then it is kept, not tried again and again.
    assert refused <= 8  # one window, at the worst: it teaches the limit, which is then kept


def test_two_accounts_share_the_work_of_one_model() -> None:
    slow = MockSettings(provider={"model": "slots", "slots": 2, "tokens_per_s": 300.0})
    with MockServer(slow) as one, MockServer(slow) as two:
        toml = f"""
[server]
port = 0
[admin]
port = 0
[scheduler]
capacity = {{ kind = "fixed", window = 2 }}
[[upstreams]]
name = "one"
base_url = "{one.url}/v1"
auth = "none"
[[upstreams]]
name = "two"
base_url = "{two.url}/v1"
auth = "none"
"""
        with sidecar(toml) as proxy, ThreadPoolExecutor(12) as crowd:
            statuses = list(
                crowd.map(
                    lambda _: call(proxy.port, headers={"x-mock-output-tokens": "20"}).status,
                    range(12),
                )
            )
        served = [mock.stats()["finished"] for mock in (one, two)]
        peaks = [mock.stats()["peak_in_flight"] for mock in (one, two)]

    assert statuses == [200] * 12
    assert sum(served) == 12
    assert min(served) >= 3
    assert max(peaks) <= 2  # no account ever held more than its own window


def test_a_refusal_that_outlasts_the_caller_is_relayed_with_a_bounded_wait() -> None:
    days = (
        b"HTTP/1.1 429 No\r\ncontent-type: application/json\r\nretry-after: 172800\r\n"
        b"retry-after-ms: 172800000\r\nx-should-retry: true\r\ncontent-length: 2\r\n\r\n{}"
    )
    with scripted([days]) as upstream:
        upstream.go(10)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            reply = call(proxy.port)

    assert reply.status == 429
    assert reply.body == b"{}"
    assert "retry-after" not in reply.headers
    assert "retry-after-ms" not in reply.headers
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-penstock-upstream-retry-after-s"] == "172800"
    assert len(upstream.requests) == 1


def test_one_upstreams_trouble_does_not_stop_the_others(mock: MockServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = free.getsockname()[1]
    toml = f"""
[server]
port = 0
[admin]
port = 0
[scheduler.capacity]
kind = "fixed"
window = 4
[[upstreams]]
name = "dead"
base_url = "http://127.0.0.1:{dead}/v1"
auth = "none"
[[upstreams]]
name = "alive"
base_url = "{mock.url}/v1"
auth = "none"
"""
    with sidecar(toml) as proxy:
        statuses = [
            call(proxy.port, headers={"x-mock-output-tokens": "2"}).status for _ in range(20)
        ]
        assert statuses == [200] * 20
        eventually(proxy.idle)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_the_callers_own_mistake_is_relayed_once(
    proxy: SidecarThread, mock: MockServer, status: int
) -> None:
    before = _seen(mock)
    reply = call(proxy.port, headers={"x-mock-fault": f"status:{status}"})
    assert reply.status == status
    assert _seen(mock) == before + 1
    eventually(proxy.idle)


def test_a_connection_closed_while_idle_is_not_the_callers_problem() -> None:
    ok = GOOD_REPLY
    with scripted([ok], close=True) as upstream:
        upstream.go(10)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            for _ in range(5):
                assert call(proxy.port).status == 200
                time.sleep(0.01)  # some closes are seen before the next request, some are not
    assert len(upstream.requests) == 5
