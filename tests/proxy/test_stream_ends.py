"""How a stream ends, and what it was if it does not end well."""

import gzip
import json
import re
import socket

import pytest

from penstock.proxy import streamed
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
from tests.proxy.test_relay import SSE, InTurn, Scripted, scripted

STREAM = {**HELLO, "stream": True}
END = b"0\r\n\r\n"
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
MARK = b"data: [DONE]\n\n"
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
ERROR = b"event: error\ndata: " + json.dumps(OVERLOADED).encode() + b"\n\n"


def _chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


def _to(upstream: Scripted) -> str:
    return in_front_of(f"http://127.0.0.1:{upstream.port}")


def _all(caller: socket.socket) -> bytes:
    got = b""
    while data := caller.recv(65536):
        got += data
    return got


def _page_of_now(proxy: SidecarThread) -> str:
    return call(proxy.admin_port, "/metrics", method="GET", body=None).body.decode()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/messages", ERROR),
        (CHAT, b'data: {"error":{"type":"server_error","code":503}}\n\n'),
    ],
)
def test_a_stream_that_begins_with_an_error_is_a_refusal_and_tried_again(
    path: str, error: bytes
) -> None:
    end = b'data: {"type":"message_stop"}\n\n' if path != CHAT else STOP + MARK
    answers = InTurn([SSE + _chunk(each) + END for each in (error, end)])
    with scripted(answers) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(2)
        assert call(proxy.port, path, body=STREAM).body == end
        assert len(upstream.requests) == 2
        assert 'outcome="refused_overload"' in proxy.metrics()


@pytest.mark.parametrize("before", [b"", TOKEN])  # in one piece with it
def test_the_refusal_is_relayed_where_there_is_no_further_try(before: bytes) -> None:
    spent = before + b'data: {"error":{"code":"insufficient_quota","message":"spent"}}\n\n'
    with scripted([SSE + _chunk(spent) + END]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(100)
        reply = call(proxy.port, body=STREAM)

        assert reply.body == spent
        assert reply.headers["x-penstock-decision"] == "refused:upstream"
        assert 'outcome="refused_quota"' in proxy.metrics()
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("before", [b"", TOKEN])
def test_an_error_that_is_the_callers_is_relayed_at_once(before: bytes) -> None:
    mistake = before + b'data: {"error":{"type":"invalid_request_error","message":"no"}}\n\n'
    with scripted([SSE + _chunk(mistake) + END]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(100)
        assert call(proxy.port, body=STREAM).body == mistake
        assert len(upstream.requests) == 1
        assert 'attempts_total{outcome="caller_error"' in proxy.metrics()


def test_an_error_after_the_first_token_is_relayed_and_no_success() -> None:
    pieces = [SSE + _chunk(TOKEN), _chunk(ERROR.replace(b'"type": "error", ', b"")) + END]
    with scripted(pieces) as upstream, sidecar(_to(upstream)) as proxy:
        with connect(proxy.port) as caller:
            caller.sendall(raw_request(STREAM))
            upstream.go()
            got = b""
            while TOKEN not in got:
                got += caller.recv(65536)

            upstream.go()

            while b"overloaded_error" not in got:
                got += caller.recv(65536)
        assert len(upstream.requests) == 1
        page = proxy.metrics()
    assert 'attempts_total{outcome="broken_midway"' in page
    assert 'outcomes_total{outcome="broken"' in page


def test_comments_are_relayed_at_once_and_are_no_first_token() -> None:
    beat = b": keep-alive\n\n"
    with scripted([SSE, _chunk(beat), _chunk(TOKEN), _chunk(MARK) + END]) as upstream:
        with sidecar(_to(upstream)) as proxy, connect(proxy.port) as caller:
            caller.sendall(raw_request(STREAM))
            upstream.go(2)
            got = b""
            while beat not in got:
                got += caller.recv(65536)
            assert "penstock_first_token_seconds_count" not in _page_of_now(proxy)

            upstream.go(2)

            while not got.endswith(END):
                got += caller.recv(65536)
            assert 'penstock_first_token_seconds_count{upstream="open"} 1.0' in proxy.metrics()


def test_a_stream_is_held_back_until_its_first_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "OPENING_S", 3600.0)
    beat = b": keep-alive\n\n"
    with scripted([SSE, _chunk(beat), _chunk(TOKEN), _chunk(MARK) + END]) as upstream:
        with sidecar(_to(upstream)) as proxy, connect(proxy.port) as caller:
            caller.sendall(raw_request(STREAM))
            upstream.go(2)
            eventually(lambda: not upstream.left())
            caller.settimeout(0.05)
            with pytest.raises(TimeoutError):
                caller.recv(1)
            caller.settimeout(20)

            upstream.go()

            got = b""
            while TOKEN not in got:
                got += caller.recv(65536)
            assert beat in got


def test_blank_lines_before_a_whole_reply_are_passed_on_at_once() -> None:
    head = SSE.replace(b"text/event-stream", b"application/json")
    reply = b'{"choices":[{"message":{"content":"x"}}],"usage":{"completion_tokens":7}}'
    with scripted([head, _chunk(b"\n"), _chunk(reply) + END]) as upstream:
        with sidecar(_to(upstream)) as proxy, connect(proxy.port) as caller:
            caller.sendall(raw_request())
            upstream.go(2)
            got = b""
            while not got.endswith(_chunk(b"\n")):
                got += caller.recv(65536)

            upstream.go()

            while not got.endswith(END):
                got += caller.recv(65536)
            assert reply in got
            page = proxy.metrics()
    assert re.search(r'output_tokens_total\{kind="real",traffic_class="\w+"\} 7\.0', page)


@pytest.mark.parametrize("framed", [True, False])
def test_a_stream_that_just_stops_is_cut_for_the_caller_too(framed: bool) -> None:
    head = SSE if framed else SSE.replace(b"transfer-encoding: chunked\r\n", b"")
    pieces = [head, _chunk(TOKEN) if framed else TOKEN, END if framed else b"\n"]
    with scripted(pieces, close=not framed) as upstream, sidecar(_to(upstream)) as proxy:
        with connect(proxy.port) as caller:
            caller.sendall(raw_request(STREAM))
            upstream.go(2)
            got = b""
            while TOKEN not in got:
                got += caller.recv(65536)

            upstream.go()

            got += _all(caller)
        assert not got.endswith(END)
        eventually(proxy.idle)
        assert 'outcomes_total{outcome="broken"' in proxy.metrics()


def test_a_stream_that_says_why_it_stopped_is_whole_without_an_end_mark() -> None:
    text = TOKEN + STOP
    with scripted([SSE + _chunk(text) + END]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        assert call(proxy.port, body=STREAM).body == text
        assert 'outcomes_total{outcome="completed"' in proxy.metrics()


SAID = b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}\n\n'
STOPPED = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


@pytest.mark.parametrize(
    ("path", "stream"), [(CHAT, TOKEN + MARK), ("/v1/messages", SAID + STOPPED)]
)
def test_a_body_that_stays_open_behind_its_end_mark_ends_for_the_caller_and_the_slot(
    path: str, stream: bytes
) -> None:
    with scripted([SSE + _chunk(stream), END]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        assert call(proxy.port, path, body=STREAM).body == stream
        assert upstream.left() == 0
        page = proxy.metrics()
    assert 'attempts_total{outcome="complete"' in page
    assert "broken" not in page


def test_a_stream_that_ends_before_anything_was_relayed_is_tried_again() -> None:
    answers = InTurn([SSE + END, SSE + _chunk(TOKEN + MARK) + END])
    with scripted(answers) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(2)
        assert call(proxy.port, body=STREAM).body == TOKEN + MARK
        assert len(upstream.requests) == 2


def test_a_compressed_stream_is_read_and_passed_on_unchanged() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
    packed = gzip.compress(TOKEN + usage + MARK)
    head = SSE.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    halves = [_chunk(packed[:30]), _chunk(packed[30:]) + END]
    with scripted([head, *halves]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(3)
        reply = call(proxy.port, body=STREAM)

        assert reply.body == packed
        assert 'penstock_usage_source_total{source="reported"} 1.0' in proxy.metrics()


def _packed(status: int, text: bytes) -> bytes:
    body = gzip.compress(text)
    head = b"HTTP/1.1 %d X\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def test_a_compressed_reply_says_its_usage() -> None:
    answer = _packed(
        200, b'{"choices":[{"message":{}}],"usage":{"prompt_tokens":5,"completion_tokens":8}}'
    )
    with scripted([answer]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        reply = call(proxy.port)

        assert reply.body == answer.split(b"\r\n\r\n", 1)[1]
        assert 'kind="real",traffic_class="heavy"} 8.0' in proxy.metrics()


def test_a_compressed_429_of_a_spent_account_is_no_rate_limit() -> None:
    spent = b'{"error":{"code":"insufficient_quota"}}'
    with scripted([_packed(429, spent)]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(100)
        reply = call(proxy.port)

        assert (reply.status, gzip.decompress(reply.body)) == (429, spent)
        assert 'outcome="refused_quota"' in proxy.metrics()


def test_a_reply_of_many_megabytes_says_its_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "CALLER_S", 60.0)  # a busy machine reads it in a second or two
    body = b'{"data":["' + b"x" * 3_000_000 + b'"],"usage":{"prompt_tokens":7}}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with scripted([head % len(body) + body]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        reply = call(proxy.port, "/v1/embeddings", body={"model": "m", "input": "x"})

        assert reply.body == body
        assert 'penstock_usage_source_total{source="reported"} 1.0' in proxy.metrics()
