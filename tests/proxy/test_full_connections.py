"""Connections that wait for their callers, and fill all the room, keep out nobody."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from penstock.asgi import Receive, Scope, Send
from penstock.listener import Bounds, Listener, bind
from penstock.proxy.admin import AdminApp
from penstock.proxy.server import Running
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    HELLO,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)
from tests.proxy.test_http import _open, _server
from tests.proxy.test_relay import scripted

BEGUN = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n{"


@pytest.mark.parametrize(
    "begun", [BEGUN, BEGUN.replace(b"\r\nc", b"\r\nexpect: 100-continue\r\nc")]
)
def test_bodies_that_do_not_end_keep_out_nobody_who_sends_a_request(
    mock: MockServer, begun: bytes
) -> None:
    with sidecar(_server(mock, "max_connections = 3")) as proxy:
        going_on, *begun_ones = (connect(proxy.port) for _ in range(3))
        for sock in (going_on, *begun_ones):
            sock.sendall(begun)
        running = proxy.running
        assert running is not None
        begun_bytes = len("hostlocalhostcontent-length200000{")
        eventually(lambda: running.sidecar.room.used_bytes >= 3 * begun_bytes)
        going_on.sendall(b" " * 150_000)  # perhaps the oldest, whose body goes on
        eventually(lambda: running.sidecar.room.used_bytes > 150_000)
        assert call(proxy.port, headers={"x-mock-output-tokens": "2"}).status == 200
        eventually(lambda: _open(proxy) == 2)
        assert call(proxy.port, "/health", method="GET", body=None).status == 200
        rest = json.dumps(HELLO).encode()[1:]
        going_on.sendall(b" " * (200_000 - 150_001 - len(rest)) + rest)
        answer = b""
        while b"200 OK" not in answer:
            answer += (data := going_on.recv(65536))
            assert data, answer
        for sock in (going_on, *begun_ones):
            sock.close()


def test_who_was_refused_and_never_asks_keeps_out_nobody_once_there_is_room(
    mock: MockServer,
) -> None:
    with sidecar(_server(mock, "max_connections = 1")) as proxy:
        with connect(proxy.port) as at_work:
            at_work.sendall(raw_request(headers={"x-mock-fault": "stall"}))
            eventually(lambda: proxy.snapshot().in_flight == 1)
            refused = [connect(proxy.port) for _ in range(4)]
            assert refused[0].recv(65536) == b""  # beyond the newest
            with connect(proxy.port) as newest:
                newest.sendall(raw_request())
                assert newest.recv(65536).startswith(b"HTTP/1.1 503 ")
            refused.append(connect(proxy.port))
        eventually(proxy.idle)
        assert call(proxy.port, headers={"x-mock-output-tokens": "2"}).status == 200
        for sock in refused:
            sock.close()


@contextmanager
def few_descriptors(number: int, folder: Path) -> Iterator[IO[str]]:
    """Run a sidecar that may open so many files; yields what it says."""
    config = folder / "penstock.toml"
    upstream = 'name = "u"\nbase_url = "http://127.0.0.1:9/v1"\n'
    config.write_text(f"[server]\nport = 0\n[admin]\nport = 0\n[[upstreams]]\n{upstream}")
    code = (
        f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({number}, {number}));"
        "from penstock.cli.main import main; main()"
    )
    serve = [sys.executable, "-c", code, "serve", "--config", str(config)]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        try:
            yield started.stderr
        finally:
            started.terminate()


def test_a_start_says_where_descriptors_leave_room_for_few_connections(tmp_path: Path) -> None:
    with few_descriptors(200, tmp_path) as words:
        said = words.readline()
    assert "max_connections = 10000, but this process may open descriptors for 20" in said


def test_silent_callers_at_both_doors_leave_descriptors_to_serve_with(tmp_path: Path) -> None:
    with few_descriptors(64, tmp_path) as words:
        said = "".join(words.readline() for _ in range(3))
        ports = [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", said)]
        silent = [connect(port) for _ in range(40) for port in ports]
        answers = [call(port, "/healthz", method="GET", body=None) for port in ports]
        for sock in silent:
            sock.close()
    assert [answer.status for answer in answers] == [200, 200]


def test_replies_that_nobody_reads_keep_out_nobody_who_sends_a_request() -> None:
    with scripted([_large_reply()]) as upstream:
        toml = in_front_of(f"http://127.0.0.1:{upstream.port}")
        with sidecar(toml.replace("[server]", "[server]\nmax_connections = 2")) as proxy:
            unread = [connect(proxy.port) for _ in range(2)]
            for sock in unread:
                sock.sendall(raw_request())
            upstream.go(2)
            # Only once more lies unread than is kept does a caller count as one who does not read.
            eventually(lambda: call(proxy.port, "/health", method="GET", body=None).status == 200)
            for sock in unread:
                sock.close()


def test_what_lies_unread_of_all_connections_is_bounded() -> None:
    async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 20_000_000})

    async def story() -> None:
        sock = bind("127.0.0.1", 0)
        listener = Listener(
            application, sock, Bounds(unread_bytes=10_000, unread_room=lambda: 2_560_000)
        )
        await listener.start()
        _reader, writer = await asyncio.open_connection(*sock.getsockname(), limit=1000)
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        async with asyncio.timeout(20):
            while listener.open_connections:
                await asyncio.sleep(0.1)
        writer.close()
        await listener.stop(0.1)

    asyncio.run(story())


def test_replies_that_nobody_reads_have_what_bodies_leave() -> None:
    with scripted([_large_reply()]) as upstream:
        toml = in_front_of(f"http://127.0.0.1:{upstream.port}")
        with sidecar(toml.replace("[server]", "[server]\nmax_held_bytes = 500_000")) as proxy:
            unread = connect(proxy.port)
            unread.sendall(raw_request())
            upstream.go(1)
            eventually(lambda: upstream.left() == 0 and _open(proxy) == 0, within_s=30.0)
            unread.close()


def test_a_caller_that_sends_many_requests_at_once_and_leaves_is_seen_to_have_left() -> None:
    """Its end stands behind what is not read yet, as reading is held back."""
    with (
        scripted([]) as upstream,
        sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy,
    ):
        with connect(proxy.port) as sock:
            sock.sendall(raw_request() * 100)
            eventually(lambda: proxy.snapshot().in_flight == 1)
        eventually(proxy.idle)
        eventually(lambda: _open(proxy) == 0)


def test_of_pages_that_are_asked_for_at_once_one_is_made_before_the_relay_goes_on(
    mock: MockServer,
) -> None:
    asked = {
        "type": "http",
        "method": "GET",
        "path": "/metrics",
        "query_string": b"",
        "headers": [],
    }
    turns = 0
    made_at: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            made_at.append(turns)

    async def story(running: Running) -> None:
        nonlocal turns
        app = AdminApp(running.sidecar, None, running.reloader)
        pages = [asyncio.create_task(app(asked, receive, send)) for _ in range(10)]
        while not all(page.done() for page in pages):
            turns += 1
            await asyncio.sleep(0)

    with sidecar(in_front_of(mock.url)) as proxy:
        assert proxy.running is not None
        asyncio.run(story(proxy.running))
    assert made_at == sorted(set(made_at))
    assert len(made_at) == 10


def _large_reply() -> bytes:
    body = b'{"choices":[{"message":{"content":"%b"}}]}' % (b"x" * 40_000_000)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
