"""Web pages and rebound names reach neither listener; the admin pages ask for their token."""

import asyncio
import base64
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli.group import group
from penstock.errors import ConfigError
from penstock.proxy.browsers import BrowserGuard
from penstock.proxy.config import loads
from penstock.sim.mock.server import MockServer
from tests.listening import listening_apart
from tests.proxy.sidecars import SidecarThread, call, eventually, in_front_of, sidecar
from tests.proxy.test_config import LEAST

TOKEN = "operator-0123456789abcdef"
ENV = {"ADMIN_TOKEN": TOKEN}
WITH_TOKEN = 'token_env = "ADMIN_TOKEN"\n'
BEARER = {"authorization": f"Bearer {TOKEN}"}


def _status(port: int, path: str, **headers: str) -> int:
    method = "GET" if path.startswith(("/health", "/snap", "/metrics")) else "POST"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(port, path, method=method, headers=sent).status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8787", 200),
        ("127.0.0.1", 200),
        ("10.1.2.3:8787", 200),
        ("[::1]:8787", 200),
        ("localhost:8787", 200),
        ("LOCALHOST", 200),
        ("me.localhost", 200),
        ("rebound.attacker.example", 421),
        ("rebound.attacker.example:8787", 421),
        ("localhost.attacker.example", 421),
        ("127.0.0.1.attacker.example", 421),
        ("attacker", 421),
        ("localhost:80:attacker.example", 421),
        ("[::1]attacker.example", 421),
        ("a/healthz?.localhost", 421),
        ("a#.localhost", 421),
        ("attacker.example\\.localhost", 421),
        ("me@.localhost", 421),
        ("", 421),
    ],
)
def test_only_names_that_nobody_can_rebind_are_served(
    shared: SidecarThread, host: str, status: int
) -> None:
    for port, path in (
        (shared.port, "/v1/chat/completions"),
        (shared.port, "/health"),
        (shared.admin_port, "/snapshot"),
    ):
        assert _status(port, path, host=host) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://attacker.example", 403),
        ("null", 403),
        ("http://localhost:3000", 403),
        ("http://localhost:8788", 200),
    ],
)
def test_no_other_page_may_call(shared: SidecarThread, origin: str, status: int) -> None:
    for port, path in ((shared.port, "/v1/chat/completions"), (shared.admin_port, "/snapshot")):
        assert _status(port, path, host="localhost:8788", origin=origin) == status


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none"])
@pytest.mark.parametrize("mode", ["no-cors", "navigate"])
def test_a_page_asks_for_nothing_by_what_brings_no_origin(
    shared: SidecarThread, site: str, mode: str
) -> None:
    headers = {"sec_fetch_site": site, "sec_fetch_mode": mode}
    foreign = site.endswith("-site")
    asked = call(shared.port, "/v1/models", method="GET", body=None, headers={
        name.replace("_", "-"): value for name, value in headers.items()
    })  # fmt: skip
    assert asked.status == (403 if foreign else 200)
    seen = _status(shared.admin_port, "/snapshot", **headers)
    assert seen == (403 if foreign and mode == "no-cors" else 200)


def test_an_origin_that_stands_twice_is_none() -> None:
    guard = BrowserGuard(_nobody, "server", "127.0.0.1", (), ())
    origins = [(b"origin", each) for each in (b"http://attacker.example", b"http://localhost")]

    refused = guard.refusal([(b"host", b"localhost"), *origins])

    assert refused is not None
    assert refused[0] == 403


def test_configured_names_and_pages_may(mock: MockServer) -> None:
    allowed = (
        'hosts = ["llm.example.org", "*.cluster.local"]\norigins = ["https://app.example.org"]\n'
    )
    toml = in_front_of(mock.url, more=allowed).replace("[server]\n", f"[server]\n{allowed}")
    with sidecar(toml) as proxy:
        for port, path in ((proxy.port, "/v1/chat/completions"), (proxy.admin_port, "/snapshot")):
            assert _status(port, path, host="LLM.example.org:80") == 200
            assert _status(port, path, host="penstock.team.svc.cluster.local") == 200
            assert _status(port, path, host="cluster.local") == 421
            assert _status(port, path, host="localhost", origin="https://app.example.org") == 200
            assert _status(port, path, host="localhost", origin="https://app.example.com") == 403


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("penstock.internal:8790", 'hosts = ["penstock.internal"] in [server]'),
        ('a"]\nkeys', 'hosts = ["NAME"] in [server]'),
    ],
)
def test_a_refused_name_is_told_the_line_that_would_allow_it(host: str, line: str) -> None:
    guard = BrowserGuard(_nobody, "server", "127.0.0.1", (), ())

    refused = guard.refusal([(b"host", host.encode())])

    assert refused is not None
    assert line in refused[2]


async def _nobody(*_words: object) -> None:
    raise AssertionError("what is refused reaches nobody")


def test_with_a_token_every_page_but_the_probes_asks_for_it(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url, more=f'{WITH_TOKEN}hosts = ["*"]\n'), ENV) as proxy:
        port = proxy.admin_port
        assert _status(port, "/healthz") == 200
        for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic !"}):
            for path in ("/snapshot", "/metrics", "/admin/upstreams/open/lift", "/nowhere"):
                refused = call(port, path, method="POST", headers=wrong)
                assert refused.status == 401
                assert TOKEN.encode() not in refused.body
            odd = {"host": "a/healthz?"}  # of which some libraries make the address /healthz
            assert call(port, "/snapshot", method="GET", headers=odd).status == 401
        basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
        assert _status(port, "/snapshot", **BEARER) == 200
        assert _status(port, "/snapshot", authorization=f"Basic {basic}") == 200


def test_without_a_token_nothing_can_be_changed(shared: SidecarThread) -> None:
    refused = call(shared.admin_port, "/admin/upstreams/open/lift")
    assert refused.status == 403
    assert b"admin.token_env" in refused.body


def test_beyond_loopback_a_token_is_required() -> None:
    with pytest.raises(ConfigError, match=r"admin\.host = '0\.0\.0\.0': needs admin\.token_env"):
        loads(f'{LEAST}[admin]\nhost = "0.0.0.0"\n', env={})
    loads(f'{LEAST}[admin]\nhost = "0.0.0.0"\n{WITH_TOKEN}', env=ENV)
    with pytest.raises(ConfigError, match="at least 16 characters"):
        loads(f"{LEAST}[admin]\n{WITH_TOKEN}", env={"ADMIN_TOKEN": "short"})


def test_a_pause_is_shown_with_cause_and_end_and_lifted_by_command(
    mock: MockServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with sidecar(in_front_of(mock.url, more=WITH_TOKEN), ENV) as proxy:
        assert call(proxy.port, headers={"x-mock-fault": "quota"}).status == 429
        state = proxy.snapshot()
        (pause,) = state.upstreams["open"].open
        assert pause.cause == "quota"
        assert pause.until > state.now
        metrics = call(proxy.admin_port, "/metrics", method="GET", headers=BEARER).body.decode()
        assert 'penstock_pause_seconds{cause="quota",upstream="open"}' in metrics
        assert 'penstock_open_circuits{upstream="open"} 1.0' in metrics
        assert call(proxy.port).status == 429
        eventually(lambda: "upstream open is out (quota)" in caplog.text)

        monkeypatch.setenv("PENSTOCK_ADMIN_TOKEN", TOKEN)
        admin = f"http://127.0.0.1:{proxy.admin_port}"
        lifted = CliRunner().invoke(group, ["lift", "open", "--admin", admin])
        assert lifted.output == "open: lifted quota.\n"
        assert call(proxy.port).status == 200
        assert not proxy.snapshot().upstreams["open"].open
        again = CliRunner().invoke(group, ["lift", "open", "--admin", admin])
        assert again.output == "open was not paused.\n"
        wrong = CliRunner().invoke(group, ["lift", "no", "--admin", admin])
        assert "there is no such upstream: there are open" in wrong.output
        monkeypatch.setenv("PENSTOCK_ADMIN_TOKEN", "wrong")
        denied = CliRunner().invoke(group, ["lift", "open", "--admin", admin])
        assert "read from PENSTOCK_ADMIN_TOKEN, and that holds another one" in denied.output
        assert denied.exit_code == 1
        monkeypatch.delenv("PENSTOCK_ADMIN_TOKEN")
        unset = CliRunner().invoke(group, ["top", "--once", "--admin", admin])
        assert "and that is not set" in unset.output


def test_a_sidecar_without_a_token_says_how_to_change_it(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:
        admin = f"http://127.0.0.1:{proxy.admin_port}"
        told = CliRunner().invoke(group, ["reload", "--admin", admin]).output
    assert "until admin.token_env (or token_file) names a token" in told
    assert "SIGHUP" in told


@pytest.mark.parametrize(
    "words", [["reload"], ["explain", "3f2a1c-1"], ["explain", "--window"], ["top", "--once"]]
)
def test_another_server_is_not_taken_for_a_sidecar(mock: MockServer, words: list[str]) -> None:
    told = CliRunner().invoke(group, [*words, "--admin", mock.url.removesuffix("/v1")])
    assert told.exit_code == 1
    assert "answered 404" in told.output
    assert "is that a sidecar's admin listener?" in told.output


@pytest.mark.parametrize(
    "words", [["reload"], ["lift", "one"], ["top", "--once"], ["explain", "--window"], ["promote"]]
)
@pytest.mark.parametrize("body", [b'{"error":"\\u001b[2J"}', b"[]", b"7", b"\x1b[2J", b""])
def test_whatever_another_server_answers_is_refused_in_words(
    words: list[str], body: bytes, tmp_path: Path
) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    config = tmp_path / "penstock.toml"
    config.write_text(f"{LEAST}[shadow.policies.calm.scheduler]\nsticky = true\n")
    if words == ["promote"]:
        words = ["promote", "calm", "-c", str(config)]
    before = config.read_bytes()
    with listening_apart(serve) as port:
        told = CliRunner().invoke(group, [*words, "--admin", f"http://127.0.0.1:{port}"])
    assert isinstance(told.exception, SystemExit | None)
    assert "\x1b" not in told.output
    assert config.read_bytes() == before
    if words[0] != "explain":
        assert "is that a sidecar's admin listener?" in told.output


@pytest.mark.parametrize("words", [["health"], ["top"], ["reload"], ["explain", "--window"]])
def test_an_admin_address_that_is_none_is_a_usage_error(words: list[str]) -> None:
    told = CliRunner().invoke(group, [*words, "--admin", "localhost:8788"])
    assert told.exit_code == 2
    assert "must be an http:// or https:// address" in told.output
