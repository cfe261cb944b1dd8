"""What a refused caller is told, and that it is told in its vendor's words."""

import time
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
import pytest

from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    CHAT,
    GOOD_REPLY,
    HELLO,
    UNPREDICTED,
    SidecarThread,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)
from tests.proxy.test_relay import scripted

LONG = {"x-mock-output-tokens": "100000"}
ONE_MAY_WAIT = """
[[classes]]
name = "all"
queue_limit = 1
"""


def _occupy(proxy: SidecarThread, path: str = CHAT) -> None:
    """Fill the one slot with a reply that does not end."""
    body = {**HELLO, "stream": True, "max_tokens": 100_000}
    proxy.holder = connect(proxy.port)  # type: ignore[attr-defined]
    proxy.holder.sendall(raw_request(body, path=path, headers=LONG))  # type: ignore[attr-defined]
    eventually(lambda: proxy.snapshot().in_flight == 1)


def test_a_full_queue_is_a_429_with_everything_a_program_needs(mock: MockServer) -> None:
    config = in_front_of(mock.url, window=1, more=UNPREDICTED, classes=ONE_MAY_WAIT)
    with sidecar(config) as proxy:
        _occupy(proxy)
        waiter = connect(proxy.port)
        waiter.sendall(raw_request())
        eventually(lambda: proxy.snapshot().waiting == 1)

        reply = call(proxy.port)

        waiter.close()
        proxy.holder.close()  # type: ignore[attr-defined]

    assert reply.status == 429
    facts = reply.json()["error"]["penstock"]
    assert facts["reason"] == "queue_full"
    assert facts["rung"] == "medium"
    assert facts["predicted_cost_tokens"] == 256
    assert 0 <= facts["severity"] <= 1
    assert facts["id"] == reply.headers["x-penstock-id"]
    assert reply.headers["x-penstock-decision"] == "refused:queue_full"
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert 1 <= int(reply.headers["retry-after-ms"]) <= 60_000
    assert reply.headers["x-should-retry"] == "true"


def test_a_request_that_waited_too_long_is_a_504_that_need_not_be_retried(
    mock: MockServer,
) -> None:
    brief = '[[classes]]\nname = "all"\nttl_s = 0.2\n'
    with sidecar(in_front_of(mock.url, window=1, classes=brief)) as proxy:
        _occupy(proxy)
        reply = call(proxy.port)
        proxy.holder.close()  # type: ignore[attr-defined]

    assert reply.status == 504
    assert reply.json()["error"]["penstock"]["reason"] == "expired"
    assert int(reply.headers["x-penstock-queue-ms"]) >= 200
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_the_sdks_raise_their_usual_exceptions(mock: MockServer, vendor: str) -> None:
    full = '[[classes]]\nname = "all"\nqueue_limit = 1\nqueue_limit_tokens = 1\n'
    path = CHAT if vendor == "openai" else "/v1/messages"
    with sidecar(in_front_of(mock.url, window=1, classes=full)) as proxy:
        _occupy(proxy, path)
        waiter = connect(proxy.port)
        waiter.sendall(raw_request({**HELLO, "max_tokens": 50}, path=path))
        eventually(lambda: proxy.snapshot().waiting == 1)
        if vendor == "openai":
            client = openai.OpenAI(base_url=proxy.url + "/v1", api_key="k", max_retries=0)
            with pytest.raises(openai.RateLimitError) as raised:
                client.chat.completions.create(model="m", messages=HELLO["messages"])
            assert raised.value.code == "penstock_queue_full"
        else:
            other = anthropic.Anthropic(base_url=proxy.url, api_key="k", max_retries=0)
            with pytest.raises(anthropic.RateLimitError) as limited:
                other.messages.create(model="m", max_tokens=50, messages=HELLO["messages"])
            assert limited.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
        waiter.close()
        proxy.holder.close()  # type: ignore[attr-defined]


def test_the_queue_time_is_told_to_the_one_who_waited(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url, window=1)) as proxy, ThreadPoolExecutor() as callers:
        _occupy(proxy)
        waiting = callers.submit(call, proxy.port, headers={"x-mock-output-tokens": "2"})
        eventually(lambda: proxy.snapshot().waiting == 1)
        seen_waiting_at = time.monotonic()
        time.sleep(0.02)
        at_least_ms = int(1000 * (time.monotonic() - seen_waiting_at))
        proxy.holder.close()  # type: ignore[attr-defined]
        reply = waiting.result()

    assert reply.status == 200
    assert int(reply.headers["x-penstock-queue-ms"]) >= at_least_ms > 0


def test_with_room_nobody_waits(proxy: SidecarThread) -> None:
    for _ in range(20):
        assert call(proxy.port, headers={"x-mock-output-tokens": "2"}).status == 200

    page = proxy.metrics()
    decisions = [line for line in page.splitlines() if line.startswith("penstock_decisions_total{")]
    # In two rungs, perhaps: the first estimates are given before the predictor is in.
    assert all('decision="dispatch",reason="nothing"' in line for line in decisions)
    assert sum(float(line.rpartition(" ")[2]) for line in decisions) == 20.0


def test_what_the_provider_will_never_take_is_asked_once_and_clients_are_told() -> None:
    body = (
        b'{"error":{"message":"Request too large for m on tokens per min (TPM): Limit 30000, '
        b'Requested 45000.","type":"tokens","code":"rate_limit_exceeded"}}'
    )
    head = f"HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: {len(body)}\r\n"
    with scripted([head.encode() + b"x-should-retry: true\r\n\r\n" + body]) as upstream:
        upstream.go(10)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            reply = call(proxy.port)
            upstream.pieces = [GOOD_REPLY]
            assert call(proxy.port).status == 200  # nobody else waits for it
    assert (reply.status, reply.body) == (429, body)
    assert reply.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 2
