"""An upstream that says no to penstock's own key, model or path is not the caller's problem."""

import logging

import pytest

from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    HELLO,
    Reply,
    SidecarThread,
    call,
    eventually,
    in_front_of,
    sidecar,
)
from tests.proxy.test_relay import Scripted, scripted

KEY = {"OUR_KEY": "sk-ours"}
ENV = 'api_key_env = "OUR_KEY"'
CALLERS = 'auth = "caller"'
PAGE = b"<html><body>Welcome to nginx</body></html>"
UNKNOWN_MODEL = b'{"error":{"code":"model_not_found","message":"no such model"}}'


def _answer(status: int, body: bytes, kind: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (status, kind, len(body)) + body


def _first_then(first: Scripted, second: MockServer, *, auth: str = ENV) -> str:
    """Return a configuration in which the first upstream is taken for the faster one."""
    return f"""
[server]
port = 0
[admin]
port = 0
[scheduler.capacity]
kind = "fixed"
window = 4
[[upstreams]]
name = "first"
base_url = "http://127.0.0.1:{first.port}/v1"
base_s = 0.001
s_per_token = 0.000001
{auth}
[[upstreams]]
name = "second"
base_url = "{second.url}/v1"
auth = "none"
"""


def _ask(proxy: SidecarThread, headers: dict[str, str] | None = None) -> Reply:
    return call(proxy.port, headers={"x-mock-output-tokens": "2", **(headers or {})})


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (_answer(401, b"{}"), "answers 401: is its key right?"),
        (_answer(403, b"{}"), "answers 403: may its key do this?"),
        (_answer(404, UNKNOWN_MODEL), "answers 404 to what another upstream serves"),
        (_answer(200, PAGE, b"text/html"), "answers with a web page"),
    ],
)
def test_what_the_first_upstream_denies_another_serves_and_the_log_says_so_once(
    mock: MockServer, answer: bytes, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with scripted([answer]) as first, sidecar(_first_then(first, mock), KEY) as proxy:
        first.go(100)

        with caplog.at_level(logging.WARNING, "penstock.proxy"):
            statuses = [_ask(proxy).status for _ in range(12)]

        assert statuses == [200] * 12
        assert 1 <= len(first.requests) <= 5  # then it is out
        eventually(proxy.idle)
    logged = [record.getMessage() for record in caplog.records]
    assert len([line for line in logged if f"upstream first {says}" in line]) == 1


def test_what_every_upstream_denies_is_the_callers_own_mistake(mock: MockServer) -> None:
    with scripted([_answer(404, UNKNOWN_MODEL)]) as first:
        with sidecar(_first_then(first, mock), KEY) as proxy:
            first.go(100)

            replies = [_ask(proxy, {"x-mock-fault": "status:404"}) for _ in range(8)]

            assert [reply.status for reply in replies] == [404] * 8
            assert len(first.requests) == 8  # it takes nobody out


@pytest.mark.parametrize("status", [401, 403, 404])
def test_with_the_callers_own_key_a_denial_is_the_callers(mock: MockServer, status: int) -> None:
    with scripted([_answer(status, b'{"who":"first"}')]) as first:
        with sidecar(_first_then(first, mock, auth=CALLERS)) as proxy:
            first.go(100)
            reply = _ask(proxy, {"authorization": "Bearer mine"})

    assert (reply.status, reply.json()) == (status, {"who": "first"})


@pytest.mark.parametrize("kind", [b"text/html; charset=utf-8", b"application/json"])
def test_a_page_with_nowhere_else_to_go_is_a_502(kind: bytes) -> None:
    with scripted([_answer(200, PAGE, kind)]) as only:
        with sidecar(in_front_of(f"http://127.0.0.1:{only.port}")) as proxy:
            only.go(100)
            reply = call(proxy.port)

            assert reply.status == 502
            assert reply.json()["error"]["code"] == "upstream_broken"
            assert len(only.requests) == 1
            eventually(proxy.idle)
            assert 'outcome="completed"' not in proxy.metrics()


GOOD_REPLY = b'{"choices":[{"message":{"content":"x"}}]}'


def test_json_that_is_called_a_page_is_relayed() -> None:
    with scripted([_answer(200, GOOD_REPLY, b"text/html")]) as only:
        with sidecar(in_front_of(f"http://127.0.0.1:{only.port}")) as proxy:
            only.go(100)
            assert call(proxy.port, body=HELLO).body == GOOD_REPLY
