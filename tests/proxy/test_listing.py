"""`/v1/models` is answered as long as any upstream has it."""

import pytest

from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import Reply, call, sidecar
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
        assert models(proxy.port).json()["error"]["code"] == "upstream_broken"
