"""Pages of `server.origins` may call the sidecar and read its answers; no other page may."""

from collections.abc import Iterator

import pytest

from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import CHAT, SidecarThread, call, in_front_of, sidecar

OURS, OTHER = "https://app.example.org", "https://evil.example"
ASKS = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-penstock-class",
}


@pytest.fixture(scope="module")
def proxy(mock: MockServer) -> Iterator[SidecarThread]:
    toml = in_front_of(mock.url).replace("[server]", f'[server]\norigins = ["{OURS}"]')
    with sidecar(toml) as running:
        yield running


def test_a_browser_may_ask_before_it_sends(proxy: SidecarThread) -> None:
    headers = {"origin": OURS, **ASKS}
    reply = call(proxy.port, CHAT, method="OPTIONS", body=None, headers=headers)

    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == OURS
    assert "authorization" in reply.headers["access-control-allow-headers"]
    assert "POST" in reply.headers["access-control-allow-methods"]


def test_a_page_may_read_the_answer_and_its_headers(proxy: SidecarThread) -> None:
    reply = call(proxy.port, headers={"origin": OURS})
    refused = call(proxy.port, "/v1/nothing", headers={"origin": OURS})

    for each in (reply, refused):
        assert each.headers["access-control-allow-origin"] == OURS
        assert each.headers["access-control-expose-headers"] == "*"
    assert (reply.status, refused.status) == (200, 404)


def test_another_page_may_neither_ask_nor_send(proxy: SidecarThread) -> None:
    for method in ("OPTIONS", "POST"):
        reply = call(proxy.port, CHAT, method=method, headers={"origin": OTHER, **ASKS})
        assert reply.status == 403
        assert "access-control-allow-origin" not in reply.headers


def test_without_origins_nothing_is_said_of_them(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:
        reply = call(proxy.port)
        assert not [name for name in reply.headers if name.startswith("access-control")]
        asked = call(proxy.port, CHAT, method="OPTIONS", body=None)
        assert (asked.status, asked.headers["allow"]) == (405, "POST")
