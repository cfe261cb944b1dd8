"""Whatever callers send, they get a clear error of the right status, and the sidecar lives on."""

import gzip
import json
import socket
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
from backports import zstd

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
    sidecar,
)
from tests.proxy.test_relay import scripted

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
MESSAGES = "/v1/messages"


def _still_works(proxy: SidecarThread) -> None:
    assert call(proxy.port).status == 200
    eventually(proxy.idle)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"text"', b"null", b"\xff\xfe", b'{"model":"m"', b"{}" * 3,
     rb'{"model": "\ud83d"', rb'["\ud83d"]' + b"[" * 9999],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_a_400(shared: SidecarThread, body: bytes) -> None:
    reply = call(shared.port, body=body)

    assert reply.status == 400
    assert reply.json()["error"]["code"] == "invalid_json"
    _still_works(shared)


@pytest.mark.parametrize("model", [None, "", 7, "m" * 300, "\ud83d"], ids=ascii)
def test_a_call_whose_model_nobody_can_tell_is_a_400_that_says_so(
    shared: SidecarThread, model: Any
) -> None:
    reply = call(shared.port, body={**HELLO, "model": model})

    assert reply.status == 400
    assert reply.json()["error"]["code"] == "invalid_model"
    assert reply.json()["error"]["message"].startswith("model ")
    _still_works(shared)


@pytest.mark.parametrize(
    "change",
    [
        {"stream": "yes"},
        {"stream": 1},
        {"messages": "hi"},
        {"messages": {"role": "user"}},
        {"messages": None},
        {"max_tokens": "many"},
        {"max_tokens": 0},
        {"max_tokens": -3},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_tokens": 10**160},
        {"max_completion_tokens": []},
        {"n": "two"},
        {"n": 10**160},
    ],
    ids=str,
)
def test_a_field_that_is_not_understood_is_the_providers_to_judge(change: dict[str, Any]) -> None:
    with scripted([GOOD_REPLY]) as upstream:
        upstream.go(10)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            body = {**HELLO, **change}
            assert call(proxy.port, body=body).status == 200
    sent = json.loads(upstream.requests[0].split(b"\r\n\r\n", 1)[1])
    assert sent == body


def test_an_error_to_an_anthropic_client_has_its_shape(shared: SidecarThread) -> None:
    reply = call(shared.port, MESSAGES, body=b"{")

    assert reply.status == 400
    assert reply.json()["type"] == "error"
    assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/v1", 404),
        ("/v1/chat", 404),
        ("/v1/", 404),
        ("/metrics", 404),
        ("/snapshot", 404),
        ("/v1/models/../chat/completions", 404),
        ("/v1/models/%2e%2e/chat/completions", 404),
    ],
)
def test_other_paths_are_refused(shared: SidecarThread, path: str, status: int) -> None:
    method = "GET" if "models" in path else "POST"
    assert call(shared.port, path, method=method).status == status


SLASHES = ["//v1/models", CHAT + "/", CHAT + "//", CHAT + "/?a=b//c", "//v1//chat///completions"]


@pytest.mark.parametrize("path", ["/v1/models/", *SLASHES])
def test_a_slash_too_many_changes_nothing(shared: SidecarThread, path: str) -> None:
    method = "GET" if "models" in path else "POST"
    body = None if "models" in path else HELLO
    assert call(shared.port, path, method=method, body=body).status == 200


def test_a_wrong_method_is_refused(shared: SidecarThread) -> None:
    assert call(shared.port, CHAT, method="GET", body=None).status == 405
    assert call(shared.port, "/v1/models", method="DELETE", body=None).status == 405


PACKERS = {"gzip": gzip.compress, "GZIP": gzip.compress, "zstd": zstd.compress,
           "br": brotli.compress, "deflate": zlib.compress}  # fmt: skip


@pytest.mark.parametrize("encoding", sorted(PACKERS))
def test_a_compressed_body_is_read_and_relayed_as_it_came(encoding: str) -> None:
    packed = PACKERS[encoding](json.dumps(HELLO).encode())
    headers = {"content-encoding": encoding}
    with scripted([GOOD_REPLY]) as upstream:
        upstream.go(10)
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            for path in (CHAT, MESSAGES):
                assert call(proxy.port, path, body=packed, headers=headers).status == 200
    for request in upstream.requests:
        head, _, sent = request.partition(b"\r\n\r\n")
        assert sent == packed
        assert f"content-encoding: {encoding}".lower().encode() in head.lower()


ODD = [
    ({}, json.dumps({**HELLO, "temperature": float("nan")}).encode()),
    ({}, json.dumps({**HELLO, "user": "caf\u00e9"}, ensure_ascii=False).encode("latin-1")),
    ({"content-encoding": "utf-8"}, json.dumps(HELLO).encode()),
    ({"content-encoding": "gzip"}, json.dumps(HELLO).encode()),
]


@pytest.mark.parametrize(("headers", "body"), ODD)
@pytest.mark.parametrize("upstream_name", ["m", "other"])
def test_what_a_provider_may_read_is_the_providers_to_judge(
    headers: dict[str, str], body: bytes, upstream_name: str
) -> None:
    renaming = f'rename = {{ m = "{upstream_name}" }}'
    with scripted([GOOD_REPLY]) as upstream:
        upstream.go()
        toml = in_front_of(f"http://127.0.0.1:{upstream.port}", upstream=renaming)
        with sidecar(toml) as proxy:
            assert call(proxy.port, body=body, headers=headers).status == 200
    head, _, sent = upstream.requests[0].partition(b"\r\n\r\n")
    assert sent == body.replace(b'"model": "m"', b'"model": "%b"' % upstream_name.encode())
    for name, value in headers.items():
        assert f"{name}: {value}".encode() in head.lower()


def test_a_compressed_body_goes_plain_where_its_model_has_another_name() -> None:
    body = {**HELLO, "model": "gpt"}
    packed = zstd.compress(json.dumps(body).encode())
    renaming = 'rename = { gpt = "deployment" }'
    with scripted([GOOD_REPLY]) as upstream:
        upstream.go(10)
        toml = in_front_of(f"http://127.0.0.1:{upstream.port}", upstream=renaming)
        with sidecar(toml) as proxy:
            reply = call(proxy.port, body=packed, headers={"content-encoding": "zstd"})
            assert reply.status == 200
    head, _, sent = upstream.requests[0].partition(b"\r\n\r\n")
    assert json.loads(sent) == {**body, "model": "deployment"}
    assert b"content-encoding" not in head.lower()


@pytest.mark.parametrize(
    ("encoding", "body", "status", "code"),
    [
        ("gzip", lambda: gzip.compress(b" " * 300_000_000, 1), 413, "body_too_large"),
        ("zstd", lambda: zstd.compress(b" " * 300_000_000), 413, "body_too_large"),
        ("gzip", lambda: b"no gzip", 400, "bad_encoding"),
        ("compress", lambda: b"?", 415, "encoding_not_taken"),
        ("gzip", lambda: gzip.compress(b"{"), 400, "invalid_json"),
    ],
    ids=["gzip bomb", "zstd bomb", "no gzip", "unknown", "no JSON"],
)
def test_a_compressed_body_that_cannot_be_read_says_why(
    shared: SidecarThread, encoding: str, body: Callable[[], bytes], status: int, code: str
) -> None:
    reply = call(shared.port, body=body(), headers={"content-encoding": encoding})

    assert (reply.status, reply.json()["error"]["code"]) == (status, code)
    assert call(shared.port, headers={"content-encoding": "identity"}).status == 200
    _still_works(shared)


def test_an_unknown_model_is_a_404_of_the_vendor(mock: MockServer) -> None:
    only = 'models = ["gpt-*", "o3"]'
    with sidecar(in_front_of(mock.url, upstream=only)) as proxy:
        known = call(proxy.port, body={**HELLO, "model": "gpt-5.2"})
        unknown = call(proxy.port, body={**HELLO, "model": "o3-mini"})
        claude = call(proxy.port, MESSAGES, body={**HELLO, "model": "claude", "max_tokens": 5})

    assert known.status == 200
    assert unknown.status == 404
    assert unknown.json()["error"]["code"] == "model_not_found"
    assert "No upstream here of dialect openai serves" in unknown.json()["error"]["message"]
    assert claude.status == 404
    assert claude.json()["error"]["type"] == "not_found_error"


def test_a_body_above_the_limit_is_a_413_before_it_is_read(shared: SidecarThread) -> None:
    with connect(shared.port) as sock:
        sock.sendall(POST + b"content-length: 99999999\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    _still_works(shared)


def test_a_chunked_body_above_the_limit_is_a_413(mock: MockServer) -> None:
    small = "[server]\nport = 0\nmax_body_bytes = 2000\n"
    toml = in_front_of(mock.url).replace("[server]\nport = 0\n", small)
    with sidecar(toml) as proxy:
        with connect(proxy.port) as sock:
            sock.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
            sock.sendall(b"800\r\n" + b" " * 2048 + b"\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
        assert call(proxy.port, body=HELLO).status == 200


def test_a_body_of_ten_megabytes_goes_through_when_allowed(mock: MockServer) -> None:
    large = "[server]\nport = 0\nmax_body_bytes = 20_000_000\n"
    toml = in_front_of(mock.url).replace("[server]\nport = 0\n", large)
    body = {**HELLO, "messages": [{"role": "user", "content": "water " * 1_700_000}]}
    before = mock.stats()["bytes_in"]
    with sidecar(toml) as proxy:
        reply = call(proxy.port, body=body, headers={"x-mock-output-tokens": "3"})

    assert reply.status == 200
    assert mock.stats()["bytes_in"] - before == len(json.dumps(body).encode())


@pytest.mark.parametrize(
    "headers",
    [
        {"x-penstock-deadline-ms": "soon"},
        {"x-penstock-deadline-ms": "-5"},
        {"x-penstock-deadline-ms": "0"},
        {"x-penstock-deadline-ms": "nan"},
        {"x-penstock-deadline-ms": "1e999"},
        {"x-penstock-class": "no such class!"},
        {"x-penstock-class": ""},
        {"x-penstock-class": "unknown"},
        {"x-penstock-tenant": "a" * 200},
        {"x-penstock-session": "a b"},
    ],
    ids=str,
)
def test_a_bad_hint_is_a_400_that_names_the_header(
    shared: SidecarThread, headers: dict[str, str]
) -> None:
    reply = call(shared.port, headers=headers)

    assert reply.status == 400
    assert next(iter(headers)) in reply.json()["error"]["message"]
    _still_works(shared)


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        (CHAT, {}, 200),
        (CHAT, {"x-penstock-deadline-ms": "soon"}, 400),
        (CHAT, {"x-penstock-progress": "sse"}, 400),
        ("/v1/files", {}, 400),
        ("/nowhere", {}, 404),
    ],
    ids=["good", "a bad hint", "a bad progress", "relayed", "unknown path"],
)
def test_a_hint_that_nobody_knows_is_named_in_the_answer_and_counted(
    proxy: SidecarThread, path: str, more: dict[str, str], status: int
) -> None:
    headers = {"x-penstock-clas": "batch", "x-penstock-of-tomorrow": "1", **more}
    reply = call(proxy.port, path, headers=headers)

    assert reply.status == status
    assert reply.headers["x-penstock-ignored"] == (
        "x-penstock-clas (did you mean x-penstock-class?), x-penstock-of-tomorrow"
    )
    assert "penstock_ignored_hints_total 1.0" in proxy.metrics()
    assert "x-penstock-ignored" not in call(proxy.port).headers


def test_a_hint_that_is_known_is_not_named_where_nothing_waits(shared: SidecarThread) -> None:
    reply = call(shared.port, "/v1/files", headers={"x-penstock-class": "batch"})
    assert "x-penstock-ignored" not in reply.headers


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -4\r\n\r\n",
        POST + b"content-length: 4\r\ncontent-length: 5\r\n\r\nabcd",
        b"POST /v1/chat/completions HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
def test_bytes_that_are_no_http_do_no_harm(shared: SidecarThread, garbage: bytes) -> None:
    with connect(shared.port) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        answer = sock.recv(65536)
    assert not answer or answer.split(b" ")[1] == b"400"
    _still_works(shared)


def test_a_body_that_never_comes_is_given_up(mock: MockServer) -> None:
    hasty = "[server]\nport = 0\nbody_timeout_s = 0.2\n"
    toml = in_front_of(mock.url).replace("[server]\nport = 0\n", hasty)
    with sidecar(toml) as proxy:
        with connect(proxy.port) as sock:
            sock.sendall(POST + b"content-length: 9\r\n\r\n{")
            assert sock.recv(65536).startswith(b"HTTP/1.1 408 ")
        eventually(proxy.idle)


def test_a_broken_form_is_no_line_of_a_log(
    shared: SidecarThread, caplog: pytest.LogCaptureFixture
) -> None:
    reply = call(
        shared.port,
        "/v1/images/edits",
        body=b"no form",
        headers={"content-type": "multipart/form-data; boundary=b"},
    )

    assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_form")
    assert caplog.records == []
