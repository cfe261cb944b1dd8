"""With `idempotency_s` a call that comes again with its key is made once."""

import concurrent.futures
from collections.abc import Iterator

import pytest

from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    CHAT,
    HELLO,
    SidecarThread,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)

LONG = {"x-mock-output-tokens": "1000"}
LENGTH = {"x-mock-output-tokens": "40"}
KEY = {"idempotency-key": "one", **LONG}


def toml(mock: MockServer, more: str = "") -> str:
    return in_front_of(mock.url).replace("[server]", f"[server]\nidempotency_s = 86400\n{more}")


@pytest.fixture
def proxy(mock: MockServer) -> Iterator[SidecarThread]:
    with sidecar(toml(mock)) as running:
        yield running


def asked(mock: MockServer) -> int:
    stats = call(int(mock.url.rpartition(":")[2]), "/mock/stats", method="GET", body=None)
    return int(stats.json()["requests"].get(CHAT, 0))


def test_calls_under_way_and_later_ones_get_one_answer(
    proxy: SidecarThread, mock: MockServer
) -> None:
    before = asked(mock)
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        replies = list(pool.map(lambda _: call(proxy.port, headers=KEY), range(5)))
    replies.append(call(proxy.port, headers=KEY))

    assert {reply.body for reply in replies} == {replies[0].body}
    assert {reply.status for reply in replies} == {200}
    assert [r.headers.get("x-penstock-replayed") for r in replies].count(None) == 1
    assert len({reply.headers["x-penstock-id"] for reply in replies}) == 1
    assert asked(mock) - before == 1


def test_a_stream_is_replayed_from_its_beginning(proxy: SidecarThread) -> None:
    body = {**HELLO, "stream": True}
    first, second = (call(proxy.port, body=body, headers=KEY) for _ in range(2))

    assert first.body == second.body
    assert first.body.endswith(b"data: [DONE]\n\n")


def test_a_caller_that_left_finds_its_answer(proxy: SidecarThread, mock: MockServer) -> None:
    before = asked(mock)
    with connect(proxy.port) as left:
        left.sendall(raw_request(headers=KEY))
        eventually(lambda: asked(mock) > before)
    reply = call(proxy.port, headers=KEY)

    assert (reply.status, reply.headers["x-penstock-replayed"]) == (200, "true")
    assert asked(mock) - before == 1
    eventually(proxy.idle)


def test_another_call_with_the_key_is_a_409_and_another_callers_is_its_own(
    proxy: SidecarThread,
) -> None:
    call(proxy.port, headers=KEY)
    other = call(proxy.port, body={**HELLO, "n": 2}, headers=KEY)
    stranger = call(proxy.port, headers={**KEY, "authorization": "Bearer other"})

    assert (other.status, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert "x-penstock-replayed" not in stranger.headers
    assert call(proxy.port, headers={"idempotency-key": "k" * 256}).status == 400


def test_an_error_is_not_kept(proxy: SidecarThread, mock: MockServer) -> None:
    before = asked(mock)
    failing = {**KEY, "x-mock-fault": "status=400"}
    statuses = {call(proxy.port, headers=failing).status for _ in range(2)}

    assert 200 not in statuses
    assert asked(mock) - before == 2


def test_what_is_kept_is_bounded_and_the_oldest_go_first(mock: MockServer) -> None:
    keys = [{"idempotency-key": name} for name in "abc"]
    with sidecar(toml(mock, "idempotency_bytes = 4000")) as proxy:
        for key in keys:
            call(proxy.port, headers={**key, **LENGTH})
        again = [call(proxy.port, headers={**key, **LENGTH}) for key in keys[::-1]]

    assert "x-penstock-replayed" in again[0].headers
    assert "x-penstock-replayed" not in again[2].headers


def test_without_the_setting_a_key_is_only_passed_on(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:
        before = asked(mock)
        for _ in range(2):
            assert "x-penstock-replayed" not in call(proxy.port, headers=KEY).headers
        assert asked(mock) - before == 2
