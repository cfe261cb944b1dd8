"""No prompt and no key gets out: not by logs, metrics, pages, errors or reprs."""

import gzip
import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.proxy.config import loads
from penstock.proxy.upstream.client import UpstreamClient
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from penstock.wire.secret import Secret
from tests.proxy.sidecars import CHAT, GOOD_REPLY, HELLO, Reply, call, eventually, sidecar
from tests.proxy.test_relay import scripted

PROMPT = "my secret harvest plan"
UPSTREAM_KEY = "sk-upstream-0123456789abcdef"
ALICE = "pk-alice-0123456789abcdef"
BOB = "pk-bob-0123456789abcdef"
SECRETS = (PROMPT, UPSTREAM_KEY, ALICE, BOB)
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}
ENV = {"UP_KEY": UPSTREAM_KEY, "ALICE_KEY": ALICE, "BOB_KEY": BOB}


@pytest.fixture(scope="module")
def guarded() -> Iterator[MockServer]:
    settings = MockSettings(
        provider={"model": "slots", "tokens_per_s": 2000.0, "ttft_s": 0.0},
        api_keys=(UPSTREAM_KEY,),
    )
    with MockServer(settings) as server:
        yield server


def _toml(url: str, more: str = "") -> str:
    return f"""
[server]
port = 0
[admin]
port = 0
{more}
[[upstreams]]
base_url = "{url}/v1"
api_key_env = "UP_KEY"
[[upstreams]]
name = "claude"
dialect = "anthropic"
base_url = "{url}/v1"
api_key_env = "UP_KEY"
[[keys]]
name = "alice"
key_env = "ALICE_KEY"
[[keys]]
name = "bob"
key_env = "BOB_KEY"
traffic_class = "heavy"
"""


def _as(key: str, port: int, body: Any = BODY, **headers: str) -> Reply:
    return call(port, body=body, headers={"authorization": f"Bearer {key}", **headers})


def test_a_known_key_is_let_in_and_the_provider_sees_only_its_own(guarded: MockServer) -> None:
    with sidecar(_toml(guarded.url), ENV) as proxy:
        assert _as(ALICE, proxy.port).status == 200
        headers = {"x-api-key": BOB, "anthropic-version": "2023-06-01"}
        reply = call(proxy.port, "/v1/messages", body={**BODY, "max_tokens": 5}, headers=headers)
        assert reply.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {ALICE}"},
        {"authorization": ALICE},
        {"authorization": f"Bearer {ALICE}x"},
        {"authorization": f"Bearer {ALICE[:-1]}"},
        {"x-api-key": "\xe9" * 8},
        {"authorization": f"Bearer {UPSTREAM_KEY}"},
    ],
    ids=range(9),
)
def test_any_other_key_is_a_401_that_does_not_repeat_it(
    guarded: MockServer, headers: dict[str, str]
) -> None:
    seen = guarded.stats()["requests"].get(CHAT, 0)
    with sidecar(_toml(guarded.url), ENV) as proxy:
        reply = call(proxy.port, body=BODY, headers=headers)
        listing = call(proxy.port, "/v1/models", method="GET", body=None, headers=headers)

    assert reply.status == 401
    assert listing.status == 401
    for value in headers.values():
        assert value.encode("latin-1") not in reply.body or not value.strip()
    assert guarded.stats()["requests"].get(CHAT, 0) == seen


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 200])
@pytest.mark.parametrize("packed", [False, True])
def test_a_provider_that_quotes_the_operators_key_tells_it_to_no_caller(
    status: int, *, packed: bool
) -> None:
    error = json.dumps({"error": {"message": f"bad key: {UPSTREAM_KEY}"}}).encode()
    body = gzip.compress(error) if packed else error
    coding = b"content-encoding: gzip\r\n" if packed else b""
    head = b"HTTP/1.1 %d X\r\n%bx-key: %b\r\ncontent-length: %d\r\n\r\n"
    said = head % (status, coding, UPSTREAM_KEY.encode(), len(body)) + body
    with scripted([said]) as upstream:
        upstream.go(20)
        toml = _toml(f"http://127.0.0.1:{upstream.port}", "[scheduler]\nmax_attempts = 1\n")
        with sidecar(toml, ENV) as proxy:
            reply = _as(ALICE, proxy.port, **{"x-penstock-deadline-ms": "5000"})
            told = call(
                proxy.port,
                "/v1/models",
                method="GET",
                body=None,
                headers={"authorization": f"Bearer {ALICE}"},
            )
    for each in (reply, told) if status >= 400 and not packed else (reply,):
        assert UPSTREAM_KEY not in repr(each.headers)
        plain = gzip.decompress(each.body) if "content-encoding" in each.headers else each.body
        assert UPSTREAM_KEY.encode() not in plain
        assert each.status >= 400


def test_a_caller_without_a_key_is_told_before_it_queues(guarded: MockServer) -> None:
    toml = f'[server]\nport = 0\n[admin]\nport = 0\n[[upstreams]]\nbase_url = "{guarded.url}/v1"\n'
    with sidecar(toml) as proxy:
        assert call(proxy.port, body=BODY).status == 401
        assert _as(UPSTREAM_KEY, proxy.port).status == 200
        assert proxy.running is not None
        assert "penstock_decisions_total{" in _page(proxy.admin_port, "/metrics")


def _page(port: int, path: str) -> str:
    return call(port, path, method="GET", body=None).body.decode()


def test_nothing_secret_is_in_any_page_log_or_repr(
    guarded: MockServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "decisions.jsonl"
    caplog.set_level(logging.DEBUG)
    with sidecar(_toml(guarded.url, f'[log]\ndecisions_path = "{log}"\n'), ENV) as proxy:
        assert _as(ALICE, proxy.port).status == 200
        assert _as(BOB, proxy.port, {**BODY, "stream": True}).status == 200
        assert _as(ALICE, proxy.port, b'{"model":"m","messages":"' + PROMPT.encode()).status == 400
        assert _as(ALICE, proxy.port, **{"x-mock-fault": "status:500"}).status == 500
        assert _as(ALICE, proxy.port, **{"x-mock-fault": "reset_at_once"}).status == 502
        assert _as(BOB, proxy.port, **{"x-penstock-class": "interactive"}).status == 403
        assert _as(ALICE, proxy.port, **{"x-penstock-session": "my-session"}).status == 200
        eventually(proxy.idle)
        pages = [
            _page(proxy.admin_port, path)
            for path in ("/metrics", "/snapshot", "/decisions?limit=1000")
        ]
        assert proxy.running is not None
        reprs = repr(
            [vars(proxy.running), vars(proxy.running.sidecar), proxy.running.sidecar.links]
        )
    written = log.read_text()

    assert "alice" in written  # the key's name is no secret: it is the tenant
    for place in (*pages, caplog.text, written, reprs):
        for secret in (*SECRETS, "my-session"):
            assert secret not in place


def test_an_error_of_ours_names_the_place_and_quotes_nothing(
    guarded: MockServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise KeyError(PROMPT)

    # Straight at the source: another test may have cut the loggers above it off.
    ours = logging.getLogger("penstock.proxy")
    ours.addHandler(caplog.handler)
    with sidecar(_toml(guarded.url), ENV) as proxy:
        assert proxy.running is not None
        monkeypatch.setattr(proxy.running.sidecar.predictor, "predict", explode)
        reply = _as(ALICE, proxy.port)

    ours.removeHandler(caplog.handler)
    assert reply.status == 500
    assert reply.json()["error"]["code"] == "internal"
    assert "KeyError" in caplog.text
    assert PROMPT not in caplog.text
    assert PROMPT.encode() not in reply.body


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(ALICE)

    assert ALICE not in repr(secret)
    assert ALICE not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == ALICE
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_a_loaded_configuration_can_be_printed() -> None:
    loaded = loads(_toml("http://127.0.0.1:1"), env=ENV)
    link = UpstreamClient(loaded.config.upstreams[0], loaded.upstream_keys["default"])

    for secret in (UPSTREAM_KEY, ALICE, BOB):
        assert secret not in repr(loaded) + repr(link)


@pytest.mark.parametrize(
    "line",
    [
        f'api_key_env = "{UPSTREAM_KEY}"',
        f'api_key = "{UPSTREAM_KEY}"',
        f'name = "{UPSTREAM_KEY} oops"',
        f'auth = "{UPSTREAM_KEY}"',
        f'authorization = "Bearer {UPSTREAM_KEY}"',
    ],
)
def test_a_key_that_strayed_into_the_file_is_not_printed(line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loads(f'[[upstreams]]\nbase_url = "http://h/v1"\n{line}\n', env={})
    assert UPSTREAM_KEY not in str(raised.value)


def test_a_password_in_a_url_is_not_printed() -> None:
    with pytest.raises(ConfigError) as raised:
        loads('[[upstreams]]\nbase_url = "https://me:hunter2@host/v1"\n', env={})
    assert "hunter2" not in str(raised.value)


def test_callers_cannot_choose_the_upstream(guarded: MockServer) -> None:
    body = {**BODY, "api_base": "http://127.0.0.1:1", "base_url": "http://127.0.0.1:1"}
    with sidecar(_toml(guarded.url), ENV) as proxy:
        reply = _as(ALICE, proxy.port, body, **{"x-forwarded-host": "evil.test"})
        assert _as(ALICE, proxy.port, body, host="evil.test").status == 421
    assert reply.status == 200
    assert json.loads(reply.body)["usage"]
    assert HELLO["model"] == "m"


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("", b"authorization: Bearer " + UPSTREAM_KEY.encode()),
        ('key_header = "api-key"', b"api-key: " + UPSTREAM_KEY.encode()),
        ('dialect = "anthropic"', b"x-api-key: " + UPSTREAM_KEY.encode()),
        (
            'dialect = "anthropic"\nkey_header = "authorization"',
            b"authorization: Bearer " + UPSTREAM_KEY.encode(),
        ),
    ],
)
def test_the_upstreams_key_goes_out_in_its_own_header_and_the_callers_in_none(
    more: str, line: bytes
) -> None:
    whole = GOOD_REPLY
    with scripted([whole]) as upstream:
        upstream.go(5)
        toml = f"""
[server]
port = 0
[admin]
port = 0
[[upstreams]]
base_url = "http://127.0.0.1:{upstream.port}/openai/v1"
api_key_env = "UP"
{more}
"""
        path = "/v1/messages" if "anthropic" in more else CHAT
        sent = {"authorization": "Bearer caller", "x-api-key": "caller", "api-key": "caller"}
        with sidecar(toml, {"UP": UPSTREAM_KEY}) as proxy:
            assert (
                call(proxy.port, path, body={**BODY, "max_tokens": 5}, headers=sent).status == 200
            )

    head = upstream.requests[0].split(b"\r\n\r\n")[0]
    lines = head.split(b"\r\n")
    assert lines[0].split(b" ")[1] == b"/openai" + path.encode()
    names = (b"authorization", b"x-api-key", b"api-key")
    assert [each for each in lines if each.split(b":")[0].lower() in names] == [line]
