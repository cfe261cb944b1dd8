"""`/v1/models` is answered as long as any upstream has it."""

import pytest

from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import Reply, call, in_front_of, sidecar
from tests.proxy.test_relay import scripted

DENIED = b"HTTP/1.1 404 No\r\ncontent-length: 4\r\n\r\nnone"
FAILED = b"HTTP/1.1 500 Oh\r\ncontent-length: 4\r\n\r\nfail"
GARBAGE = b"SSH-2.0-OpenSSH\r\n"


def toml(*urls: str, more: str = "") -> str:
    return "[server]\nport = 0\n[admin]\nport = 0\n" + "".join(
        f'[[upstreams]]\nname = "u{i}"\nbase_url = "{url}/v1"\nauth = "none"\n{more}\n'
        for i, url in enumerate(urls)
    )


def models(port: int, name: str = "") -> Reply:
    return call(port, f"/v1/models{name}", method="GET", body=None)


@pytest.mark.parametrize("answer", [DENIED, FAILED, GARBAGE])
def test_the_first_upstream_that_has_the_list_is_heard(mock: MockServer, answer: bytes) -> None:
    with scripted([answer]) as first:
        first.go(10)
        url = f"http://127.0.0.1:{first.port}"
        with sidecar(toml(url, mock.url)) as proxy:
            assert models(proxy.port).json()["object"] == "list"
    assert len(first.requests) == 1


def test_a_dead_first_upstream_does_not_hide_the_second(mock: MockServer) -> None:
    with sidecar(toml("http://127.0.0.1:9", mock.url)) as proxy:
        assert models(proxy.port).status == 200


def test_where_no_upstream_has_it_the_first_answer_is_relayed_and_without_any_it_is_a_502() -> None:
    with scripted([DENIED]) as first, scripted([FAILED]) as second:
        first.go(10)
        second.go(10)
        urls = [f"http://127.0.0.1:{each.port}" for each in (first, second)]
        with sidecar(toml("http://127.0.0.1:9", *urls)) as proxy:
            reply = models(proxy.port, "/gpt-4o")
            assert (reply.status, reply.body) == (404, b"none")
    with sidecar(toml("http://127.0.0.1:9")) as proxy:
        assert models(proxy.port).json()["error"]["code"] == "upstream_unreachable"


def test_anthropics_count_of_tokens_is_relayed_beside_the_scheduler() -> None:
    counted = b'HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{"input_tokens": 14 }'
    body = b'{ "model":"claude", "messages":[] }'
    with scripted([counted]) as upstream:
        upstream.go(10)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            reply = call(proxy.port, "/v1/messages/count_tokens?beta=true", body=body)
            assert call(proxy.port, "/v1/messages/count_tokens", body=b"{}").status == 400
            assert call(proxy.port, "/v1/messages/count_tokens", method="GET").status == 405

    assert (reply.status, reply.json()) == (200, {"input_tokens": 14})
    assert "x-penstock-id" not in reply.headers
    assert len(upstream.requests) == 1
    assert upstream.requests[0].startswith(b"POST /v1/messages/count_tokens?beta=true HTTP/1.1")
    assert upstream.requests[0].endswith(body)


def test_a_count_of_tokens_goes_to_no_upstream_of_another_dialect(mock: MockServer) -> None:
    with sidecar(toml(mock.url)) as proxy:
        body = {"model": "claude", "messages": []}
        reply = call(proxy.port, "/v1/messages/count_tokens", body=body)
    assert (reply.status, reply.json()["type"]) == (404, "error")
