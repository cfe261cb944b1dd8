"""A company's network: upstreams are reached through an HTTP proxy, and it may refuse."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.proxy.config import loads
from penstock.sim.mock.server import MockServer
from tests.integrations.http.tunnel import AUTHORITY, HOST, Tunnels
from tests.proxy.sidecars import (
    GOOD_REPLY,
    HELLO,
    Reply,
    SidecarThread,
    call,
    eventually,
    in_front_of,
    sidecar,
)
from tests.proxy.test_relay import scripted

ANSWER = GOOD_REPLY
SHORT = {"x-mock-output-tokens": "6"}


@pytest.fixture
async def tunnels(
    mock: MockServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Tunnels]:
    """A proxy that tunnels to a provider whose certificate this process trusts."""
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with Tunnels(mock.port).running() as made:
        yield made


async def ask(proxy: SidecarThread, **more: Any) -> Reply:
    return await asyncio.to_thread(call, proxy.port, **more)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [r for r in caplog.records if r.name == "penstock.proxy"]
    return [r.getMessage() for r in ours if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("named_by", ["configuration", "environment"])
async def test_an_upstream_behind_a_proxy_is_reached_through_a_tunnel(
    named_by: str, tunnels: Tunnels
) -> None:
    key = f'proxy = "{tunnels.url}"' if named_by == "configuration" else ""
    env = {} if key else {"HTTPS_PROXY": tunnels.url}
    with sidecar(in_front_of(f"https://{HOST}", upstream=key), env) as proxy:
        first = await ask(proxy, headers=SHORT)
        second = await ask(proxy, headers=SHORT)
        stream = await ask(proxy, headers=SHORT, body={**HELLO, "stream": True})
        eventually(proxy.idle)

    assert [first.status, second.status] == [200, 200]
    assert stream.body.endswith(b"data: [DONE]\n\n")
    assert tunnels.asked == [f"CONNECT {HOST}:443 HTTP/1.1"]  # one tunnel, kept open


async def test_a_password_reaches_the_proxy_and_nobody_else(tunnels: Tunnels) -> None:
    url = tunnels.url.replace("//", "//me:w%40rd@")
    with sidecar(in_front_of(f"https://{HOST}"), {"https_proxy": url}) as proxy:
        reply = await ask(proxy, headers=SHORT)

    assert reply.status == 200
    assert tunnels.credentials == ["Basic " + base64.b64encode(b"me:w@rd").decode()]
    loaded = loads(in_front_of(f"https://{HOST}"), env={"https_proxy": url})
    assert "w@rd" not in repr(loaded)
    assert "Basic" not in repr(loaded)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("407 Proxy Authentication Required", "user name and a password"),
        ("403 Forbidden", "403 Forbidden"),
        ("nonsense", "not HTTP"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel_is_named_with_its_reason(
    answer: str, said: str, tunnels: Tunnels, caplog: pytest.LogCaptureFixture
) -> None:
    tunnels.refuses_with = answer
    with sidecar(in_front_of(f"https://{HOST}", upstream=f'proxy = "{tunnels.url}"')) as proxy:
        reply = await ask(proxy)
        eventually(proxy.idle)

    assert reply.status == 502
    assert reply.json()["error"]["code"] == "upstream_unreachable"
    (line,) = warnings(caplog)  # once, however often it was tried
    assert said in line
    assert f"opened no tunnel to {HOST}:443" in line


async def test_a_certificate_nobody_trusts_is_refused_through_a_tunnel_too(
    tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with sidecar(in_front_of(f"https://{HOST}", upstream=f'proxy = "{tunnels.url}"')) as proxy:
        reply = await ask(proxy)
        eventually(proxy.idle)

    assert reply.status == 502
    assert "through the proxy 127.0.0.1:" in warnings(caplog)[0]
    assert "ertificate" in warnings(caplog)[0]


def test_plain_http_is_relayed_by_the_proxy_which_is_told_the_whole_url() -> None:
    with scripted([ANSWER]) as company:
        env = {"http_proxy": f"me:word@127.0.0.1:{company.port}"}  # without a scheme, as many do
        with sidecar(in_front_of("http://provider.invalid:8000"), env) as proxy:
            company.go()
            reply = call(proxy.port)

    assert reply.status == 200
    head = company.requests[0]
    assert head.startswith(b"POST http://provider.invalid:8000/v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nhost: provider.invalid:8000\r\n" in head.lower()
    assert b"\r\nproxy-authorization: Basic bWU6d29yZA==\r\n" in head


@pytest.mark.parametrize(
    ("base_url", "env", "through"),
    [
        ("https://api.example", {"HTTPS_PROXY": "http://p:1"}, ("p", 1)),
        ("https://api.example", {"HTTPS_PROXY": "http://p:1", "https_proxy": "q:2"}, ("q", 2)),
        ("https://api.example", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://api.example", {"HTTP_PROXY": "http://p:1"}, ("p", 1)),
        ("http://api.example", {"ALL_PROXY": "http://p"}, ("p", 3128)),
        ("https://api.example", {"ALL_PROXY": "http://p:1", "NO_PROXY": ".example"}, None),
        ("https://api.example", {"ALL_PROXY": "http://p:1", "NO_PROXY": "pi.example"}, ("p", 1)),
        ("https://api.example", {"ALL_PROXY": "http://p:1", "no_proxy": "*"}, None),
        ("http://127.0.0.1:8000", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://localhost:8000", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://[::1]:8000", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://10.0.0.7:8000", {"HTTP_PROXY": "http://p:1"}, ("p", 1)),
        ("http://10.0.0.7:8000", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "a, 10.0.0.0/8"}, None),
        ("http://10.0.0.7:8000", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.7:8000"}, None),
        ("http://10.0.0.7", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.7:8000"}, ("p", 1)),
        ("http://10.0.0.7", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "7,0.7"}, ("p", 1)),
        ("http://[fd00::1]", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "fd00::/8"}, None),
        ("http://[fd00::1]", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "[fd00::1]:80"}, None),
    ],
)
def test_the_environment_is_read_as_everywhere(
    base_url: str, env: dict[str, str], through: tuple[str, int] | None
) -> None:
    loaded = loads(f'[[upstreams]]\nbase_url = "{base_url}"', env=env)

    found = loaded.forward_proxies.get("default")
    assert (None if found is None else (found.host, found.port)) == through


def test_none_goes_past_the_environments_proxy() -> None:
    text = '[[upstreams]]\nbase_url = "https://api.example"\nproxy = "none"'

    assert loads(text, env={"HTTPS_PROXY": "socks5://p:1"}).forward_proxies == {}


@pytest.mark.parametrize(
    ("key", "env", "said"),
    [
        ("socks5://p:1", {}, "upstreams[0].proxy = 'socks5://p:1': must be an http:// proxy"),
        ("https://p:1", {}, "TLS to the proxy are not spoken"),
        ("http://p:1/path", {}, "must be a proxy's http://host:port"),
        ("http://p:99999", {}, "upstreams[0].proxy = 'http://p:99999': Port out of range"),
        ("http://me:word@p:1", {}, "must not hold a user name or password"),
        (None, {"HTTPS_PROXY": "socks5://me:word@p:1"}, "HTTPS_PROXY of the environment must be"),
        (None, {"all_proxy": "socks5h://p:1"}, 'proxy = "none" dials the upstream directly'),
    ],
)
def test_a_proxy_that_cannot_be_used_is_said_at_the_start(
    key: str | None, env: dict[str, str], said: str
) -> None:
    line = "" if key is None else f'proxy = "{key}"'
    with pytest.raises(ConfigError) as raised:
        loads(f'[[upstreams]]\nbase_url = "https://api.example"\n{line}', env=env)

    assert said in str(raised.value)
    assert "word@" not in str(raised.value)
