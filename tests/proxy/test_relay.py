"""What goes through the sidecar goes through unchanged, piece by piece."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

import pytest

from tests.listening import listening_apart
from tests.proxy.sidecars import (
    CHAT,
    HELLO,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)

SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
REPLY = b'{"choices":[{"message":{"content":"x"}}]}'
DONE = b"e\r\ndata: [DONE]\n\n\r\n"


class InTurn(list[bytes]):
    """Whole answers, of which each request gets the next, and those after them the last."""

    def __iter__(self) -> Iterator[bytes]:
        yield self.pop(0) if len(self) > 1 else self[0]


class Scripted:
    """An upstream that writes the given pieces, each only when the test says so."""

    def __init__(self, pieces: list[bytes], *, close: bool = False) -> None:
        self.pieces = pieces
        self.close = close
        self.requests: list[bytes] = []
        self.port = 0
        self._go = threading.Semaphore(0)
        self._serving = ExitStack()

    def go(self, count: int = 1) -> None:
        for _ in range(count):
            self._go.release()

    def _wait(self) -> None:
        self._go.acquire()

    def left(self) -> int:
        """Return how many pieces the test allowed and the upstream has not written yet."""
        return self._go._value

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.requests.append(head + await reader.readexactly(length))
            for piece in self.pieces:
                await asyncio.to_thread(self._wait)
                writer.write(piece)
                await writer.drain()
            if self.close:
                return

    def __enter__(self) -> Self:
        self.port = self._serving.enter_context(listening_apart(self._serve))
        return self

    def __exit__(self, *_: object) -> None:
        self.go(1000)
        self._serving.close()


@contextmanager
def scripted(pieces: list[bytes], *, close: bool = False) -> Iterator[Scripted]:
    with Scripted(pieces, close=close) as upstream:
        yield upstream


def _whole(body: bytes, head: bytes = b"content-type: application/json\r\n") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + head + b"content-length: %d\r\n\r\n" % len(body) + body


def _to(upstream: Scripted) -> str:
    return in_front_of(f"http://127.0.0.1:{upstream.port}")


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_both_bodies_are_byte_identical(bom: bytes) -> None:
    odd = bom + b' {"model" :\t"m","messages":[ ],  "x":1e2,"x":"\\u00e9\\ud83d\\ude00"} '
    reply = bom + b'{"usage" : {"completion_tokens":3},  "choices":[{"message":{}},2,\n3]}\n'
    with scripted([_whole(reply)]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        found = call(proxy.port, body=odd)

    assert found.body == reply
    assert upstream.requests[0].endswith(b"\r\n\r\n" + odd)


@pytest.mark.parametrize("predictor", ["", '[predictor]\nkind = "online"\nprior = "none"\n'])
def test_a_body_with_half_an_emoji_is_relayed_byte_for_byte(predictor: str) -> None:
    cut = (
        rb'{"model": "m", "messages": [{"role": "user", "content": "so \ud83d"}], "max_tokens": 5}'
    )
    with scripted([_whole(REPLY)]) as upstream:
        upstream.go()
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}", more=predictor)) as proxy:
            assert proxy.running is not None
            estimator = proxy.running.sidecar.predictor
            eventually(lambda: not predictor or estimator.guard is not None)
            assert call(proxy.port, body=cut).status == 200
            assert estimator.unread == 0

    assert upstream.requests[0].endswith(cut)


def test_headers_travel_except_those_of_one_connection_and_ours() -> None:
    head = b"x-request-id: r1\r\nkeep-alive: timeout=5\r\nconnection: x-private\r\nx-private: 1\r\n"
    with scripted([_whole(REPLY, head)]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        found = call(
            proxy.port,
            CHAT + "?api-version=7",
            headers={
                "openai-organization": "org",
                "connection": "x-mine",
                "x-mine": "1",
                "te": "trailers",
                "x-penstock-class": "interactive",
                "accept-encoding": "gzip",
                "authorization": "Bearer callers-own",
            },
        )

    sent = upstream.requests[0].lower()
    assert sent.startswith(b"post /v1/chat/completions?api-version=7 http/1.1\r\n")
    assert b"openai-organization: org" in sent
    assert b"accept-encoding: identity" in sent
    assert f"host: 127.0.0.1:{upstream.port}".encode() in sent
    for gone in (b"x-mine", b"te:", b"x-penstock", b"gzip", b"callers-own", b"connection"):
        assert gone not in sent
    assert found.headers["x-request-id"] == "r1"
    assert found.headers["x-penstock-decision"] == "dispatched"
    assert found.headers["x-penstock-queue-ms"].isdigit()
    assert found.headers["x-penstock-id"]
    assert "keep-alive" not in found.headers
    assert "x-private" not in found.headers


def test_nothing_is_added_to_the_callers_headers_but_what_the_relay_needs() -> None:
    with (
        scripted([_whole(REPLY)]) as upstream,
        sidecar(_to(upstream)) as proxy,
        connect(proxy.port) as caller,
    ):
        upstream.go()
        caller.sendall(raw_request())
        assert caller.recv(65536).startswith(b"HTTP/1.1 200 ")

    lines = upstream.requests[0].lower().partition(b"\r\n\r\n")[0].split(b"\r\n")
    names = sorted(line.partition(b":")[0] for line in lines[1:])
    assert names == [b"accept-encoding", b"content-length", b"host"]


LENGTH = b"content-length: %d\r\n" % len(REPLY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (LENGTH * 2, REPLY),
        (LENGTH[:-2] + b", %d\r\n" % len(REPLY), REPLY),
        (LENGTH + CHUNKED, b"%x\r\n%s\r\n0\r\n\r\n" % (len(REPLY), REPLY)),
        (CHUNKED + LENGTH, b"%x\r\n%s\r\n0\r\n\r\n" % (len(REPLY), REPLY)),
        (LENGTH + b"x-penstock-a: b\r\n" * 500, REPLY),
        (b"HTTP/1.2 200 OK\r\n" + LENGTH, REPLY),
    ],
)
def test_a_head_that_the_sdks_libraries_read_is_read(head: bytes, body: bytes) -> None:
    first = b"" if head.startswith(b"HTTP/") else b"HTTP/1.1 200 OK\r\n"
    answer = first + head + b"content-type: application/json\r\n\r\n" + body
    with scripted([answer]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(2)
        found = [call(proxy.port) for _ in range(2)]

    assert [(each.status, each.body) for each in found] == [(200, REPLY)] * 2
    assert found[0].headers["content-length"] == str(len(REPLY))


@pytest.mark.parametrize("kind", [b"", b"content-type: text/event-stream; charset=utf-8\r\n"])
def test_a_stream_says_what_it_is_and_that_no_server_between_is_to_gather_it(kind: bytes) -> None:
    events = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % len(events) + kind + b"\r\n"
    with scripted([head + events]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        found = call(proxy.port, body={**HELLO, "stream": True})

    assert found.headers["content-type"].startswith("text/event-stream")
    assert found.headers["x-accel-buffering"] == "no"


def test_two_lengths_that_differ_are_no_http() -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + LENGTH + b"content-length: 3\r\n\r\n" + REPLY
    with scripted([answer]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(9)
        assert call(proxy.port).status == 502


@pytest.mark.parametrize("value", [b"caf\xe9", "caf\u00e9".encode(), b"\xff\xfe", b"\xed\xa0\xbd"])
@pytest.mark.parametrize("method", ["POST /v1/chat/completions", "GET /v1/files"])
def test_a_headers_bytes_are_relayed_whatever_their_encoding(method: str, value: bytes) -> None:
    body = b"" if method.startswith("GET") else json.dumps(HELLO).encode()
    head = f"{method} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\nx-title: "
    with (
        scripted([_whole(REPLY, b"x-region: " + value + b"\r\n")]) as upstream,
        sidecar(_to(upstream)) as proxy,
        connect(proxy.port) as caller,
    ):
        upstream.go()
        caller.sendall(head.encode() + value + b"\r\n\r\n" + body)
        answer = caller.recv(65536)

    assert b"\r\nx-title: " + value + b"\r\n" in upstream.requests[0]
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nx-region: " + value + b"\r\n" in answer


@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
def test_a_control_character_in_an_answers_header_becomes_a_blank(path: str) -> None:
    head = b"x-region: a\x01b\x7fc\r\n"
    with scripted([_whole(REPLY, head)]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        answer = call(proxy.port, path)

    assert answer.status == 200
    assert answer.headers["x-region"] == "a b c"
    assert answer.body == REPLY


def test_a_stream_is_relayed_as_it_comes() -> None:
    events = [*(b'data: {"n":%d}\n\n' % n for n in range(3)), b"data: [DONE]\n\n"]
    pieces = [SSE, *(b"%x\r\n%s\r\n" % (len(e), e) for e in events), b"0\r\n\r\n"]
    with scripted(pieces) as upstream, sidecar(_to(upstream)) as proxy:
        with connect(proxy.port) as caller:
            caller.sendall(raw_request({**HELLO, "stream": True}))
            upstream.go()  # the head alone
            for event in events:
                upstream.go()
                seen = b""
                while event not in seen:  # it is here before the next one was even sent
                    seen += caller.recv(65536)
            upstream.go()
            assert caller.recv(65536).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("cut", [b"\n\n", b"data", b":", b"}"])
def test_a_stream_cut_anywhere_arrives_with_the_same_bytes(cut: bytes) -> None:
    text = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'
    parts = [part for part in text.replace(cut, cut + b"\0").split(b"\0") if part]
    pieces = [SSE, *(b"%x\r\n%s\r\n" % (len(p), p) for p in parts), b"0\r\n\r\n"]
    with scripted(pieces) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(len(pieces))
        assert call(proxy.port, body={**HELLO, "stream": True}).body == text


def test_a_reply_that_ends_with_its_connection_is_whole() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
    with scripted([head, REPLY[:9], REPLY[9:]], close=True) as upstream:
        with sidecar(_to(upstream)) as proxy:
            upstream.go(3)
            assert call(proxy.port).body == REPLY


def test_a_trailer_is_read_past_and_the_connection_serves_on() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"
    chunk = b"%x\r\n%s\r\n" % (len(REPLY), REPLY)
    reply = head + b"trailer: x-sum\r\n\r\n" + chunk + b"0\r\nx-sum: 7\r\n\r\n"
    with scripted([reply]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(2)
        found = [call(proxy.port) for _ in range(2)]

    assert [(each.status, each.body) for each in found] == [(200, REPLY)] * 2
    assert all("x-sum" not in each.headers for each in found)


def test_an_interim_answer_is_passed_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    with scripted([early, _whole(REPLY)]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(2)
        found = call(proxy.port)
    assert found.status == 200
    assert "link" not in found.headers


def test_a_reply_of_many_megabytes_comes_through() -> None:
    body = b'{"data":"' + b"x" * 5_000_000 + b'"}'
    with scripted([_whole(body)]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        assert call(proxy.port).body == body
        eventually(proxy.idle)


def test_a_redirect_is_neither_followed_nor_handed_on() -> None:
    moved = b"HTTP/1.1 307 Elsewhere\r\nlocation: http://evil.test/\r\ncontent-length: 0\r\n\r\n"
    with scripted([moved]) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go()
        found = call(proxy.port)
    assert (found.status, found.json()["error"]["code"]) == (502, "upstream_broken")
    assert "location" not in found.headers
    assert found.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


def test_a_slow_reader_slows_the_upstream_down() -> None:
    flood = b"data: " + b"x" * 65_000 + b"\n\n"
    pieces = [SSE] + [b"%x\r\n%s\r\n" % (len(flood), flood)] * 900 + [DONE, b"0\r\n\r\n"]
    with scripted(pieces) as upstream, sidecar(_to(upstream)) as proxy:
        upstream.go(len(pieces))
        with socket.socket() as caller:
            # Without it the kernel may grow the caller's own buffer to a sixth of the flood.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            caller.settimeout(20)
            caller.connect(("127.0.0.1", proxy.port))
            caller.sendall(raw_request({**HELLO, "stream": True}))
            caller.recv(10)
            left = [upstream.left()]
            while len(left) < 20 or left[-1] != left[-20]:  # until it has come to a standstill
                time.sleep(0.02)
                left.append(upstream.left())
            assert left[-1] > 450  # most of the 59 MB were not read ahead of the caller
            seen, last = 0, b""
            while not last.endswith(b"0\r\n\r\n"):
                data = caller.recv(1 << 20)
                seen += len(data)
                last = (last + data)[-5:]
        assert seen > 900 * len(flood)
