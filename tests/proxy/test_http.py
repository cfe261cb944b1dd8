"""What is decided about HTTP before the application: framing, limits, patience, signals."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock.asgi import Receive, Scope, Send
from penstock.listener import Bounds, Listener, bind, connection_limit
from penstock.sim.mock.server import MockServer
from tests.listening import listening_apart
from tests.programs import needed
from tests.proxy.sick import GOOD, answer
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
from tests.proxy.test_relay import DONE, SSE, scripted

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
CONTENT = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
SIZES = range(500_000, 700_000, 20_000)
UPGRADES = [
    {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABk"},
    {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "x" * 22 + "=="},
    {"connection": "upgrade", "upgrade": "TLS/1.0"},
]


def chunked(request: bytes) -> bytes:
    """Return the same request with its body in two chunks."""
    head, blank, body = request.partition(b"\r\n\r\n")
    head = head.replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked")
    pieces = 9, body[:9], len(body) - 9, body[9:]
    return head + blank + b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % pieces


def answer_of(sock: socket.socket, count: int = 1) -> bytes:
    """Return so many whole answers that state their length."""
    got = b""
    for _ in range(count):
        while b"\r\n\r\n" not in got:
            data = sock.recv(65536)
            assert data, f"closed after {got!r}"
            got += data
        head, _, rest = got.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(rest) < length:
            rest += sock.recv(65536)
        answer, got = head + b"\r\n\r\n" + rest[:length], rest[length:]
        assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert not got
    return answer


@pytest.mark.parametrize("headers", UPGRADES, ids=lambda h: h["upgrade"])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_upgrade_that_nobody_takes_up_is_ignored(
    shared: SidecarThread, mock: MockServer, headers: dict[str, str], split: bool, is_chunked: bool
) -> None:
    def seen() -> int:
        return int(mock.stats()["requests"].get(CHAT, 0))

    before = seen()
    request = raw_request(headers={**headers, "x-mock-output-tokens": "2"})
    request = chunked(request) if is_chunked else request
    head, blank, body = request.partition(b"\r\n\r\n")
    with connect(shared.port) as sock:
        for _ in range(2):  # the connection stays one of HTTP/1.1
            if split:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(head + blank)
                eventually(lambda: shared.running is not None)
                sock.sendall(body)
            else:
                sock.sendall(request)
            assert b"chat.completion" in answer_of(sock)
    assert seen() == before + 2


def test_pipelined_requests_are_answered_in_their_order(shared: SidecarThread) -> None:
    with connect(shared.port) as sock:
        sock.sendall(raw_request(headers={"x-mock-output-tokens": "2"}) * 5)
        answer_of(sock, 5)


@pytest.mark.parametrize("headers", UPGRADES, ids=lambda h: h["upgrade"])
@pytest.mark.parametrize("cut_bytes", [1_000_000, 100, 7])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_requests_pipelined_behind_an_upgrade_are_answered_too(
    shared: SidecarThread, headers: dict[str, str], cut_bytes: int, *, is_chunked: bool
) -> None:
    plain = raw_request(headers={"x-mock-output-tokens": "2"})
    offering = raw_request(headers={**headers, "x-mock-output-tokens": "2"})
    offering = chunked(offering) if is_chunked else offering
    story = plain + offering * 2 + plain * 40
    with connect(shared.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(story), cut_bytes):
            sock.sendall(story[start : start + cut_bytes])
        answer_of(sock, 43)


def test_a_caller_that_waits_for_100_continue_gets_it(shared: SidecarThread) -> None:
    head, blank, body = raw_request(headers={"expect": "100-continue"}).partition(b"\r\n\r\n")
    with connect(shared.port) as sock:
        sock.sendall(head + blank)
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        answer_of(sock)


def test_curl_that_offers_http2_is_served(shared: SidecarThread) -> None:
    done = subprocess.run(
        [needed("curl", "curl"), "-sS", "--http2", "-d", json.dumps(HELLO), f"{shared.url}{CHAT}"],
        capture_output=True, timeout=20, check=True,
    )  # fmt: skip
    assert b"chat.completion" in done.stdout


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 3000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"y" * 3000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", b"431"),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nnonsense\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET /healthz\r\nhost: localhost\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/2.0\r\nhost: localhost\r\n\r\n", b"400"),
    ],
)
def test_heads_that_cannot_be_taken_are_answered_without_quoting_them(
    mock: MockServer, head: bytes, status: bytes
) -> None:
    with sidecar(_server(mock, "max_head_bytes = 2048")) as proxy, connect(proxy.port) as sock:
        sock.sendall(head)
        answer = b""
        while data := sock.recv(65536):
            answer += data
        assert answer.startswith((b"HTTP/1.0 ", b"HTTP/1.1 "))
        assert answer.split(b" ")[1] == status
        assert b"yyyy" not in answer
        assert call(proxy.port, headers={"x-mock-output-tokens": "2"}).status == 200


def test_a_head_is_bounded_as_a_whole(mock: MockServer) -> None:
    """128 headers of 64 kB each would be 8 MB a connection."""
    header = b"x: " + b"y" * 1900 + b"\r\n"
    with sidecar(_server(mock, "max_head_bytes = 2048")) as proxy:
        with connect(proxy.port) as used:  # also on a connection that has answered
            used.sendall(raw_request({**HELLO, "user": "z" * 9000}))
            answer_of(used)
            used.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + header * 2)
            assert used.recv(65536).startswith(b"HTTP/1.1 431 ")
            assert used.recv(65536) == b""
        large = call(proxy.port, body={**HELLO, "user": "z" * 3_000_000})
        assert large.status == 200  # a body is no head, whatever it is cut into


def test_a_body_whose_end_came_while_reading_was_held_back_is_read() -> None:
    """The parser keeps what it may not pass on, and gives it once it is asked again."""
    sizes: list[int] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)  # all has come by now
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        sizes.append(size)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def story() -> None:
        sock = bind("127.0.0.1", 0)
        listener = Listener(application, sock, Bounds())
        await listener.start()
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        for size in SIZES:
            head = f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n"
            writer.write(head.encode() + b"x" * size)
            await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 20.0)
        writer.close()
        await listener.stop(0.1)

    asyncio.run(story())
    assert sizes == list(SIZES)


@pytest.mark.parametrize("begun", [b"", b"POST /v1/chat/completions HTT"])
def test_whoever_sends_no_head_is_closed(mock: MockServer, begun: bytes) -> None:
    with sidecar(_server(mock, "head_timeout_s = 1.0")) as proxy:
        with connect(proxy.port) as sock:
            sock.sendall(begun)
            assert sock.recv(65536) == b""
        with connect(proxy.port) as used:  # a head that stops is closed on a used connection too
            used.sendall(raw_request(headers={"x-mock-output-tokens": "2"}))
            answer_of(used)
            used.sendall(b"POST /v1")
            assert used.recv(65536) == b""


def test_a_connection_is_kept_for_as_long_as_configured(mock: MockServer) -> None:
    with sidecar(_server(mock, "keep_alive_s = 0.2")) as proxy, connect(proxy.port) as sock:
        sock.sendall(raw_request(headers={"x-mock-output-tokens": "2"}))
        answer_of(sock)
        assert sock.recv(65536) == b""


def test_connections_above_the_limit_are_told_so_and_operators_keep_their_room(
    mock: MockServer,
) -> None:
    with sidecar(_server(mock, "max_connections = 3")) as proxy:
        at_work = [connect(proxy.port) for _ in range(3)]
        for sock in at_work:
            sock.sendall(raw_request(headers={"x-mock-fault": "stall"}))
        eventually(lambda: proxy.snapshot().in_flight == 3)
        with connect(proxy.port) as sock:
            sock.sendall(raw_request())
            answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"too_many_connections" in answer
        assert call(proxy.admin_port, "/healthz", method="GET", body=None).status == 200
        for sock in at_work:
            sock.close()
        eventually(lambda: _open(proxy) == 0)
        assert call(proxy.port, headers={"x-mock-output-tokens": "2"}).status == 200


def test_connections_without_a_request_keep_out_nobody_who_has_one(mock: MockServer) -> None:
    with sidecar(_server(mock, "max_connections = 3")) as proxy:
        with connect(proxy.port) as kept:
            kept.sendall(raw_request(headers={"x-mock-output-tokens": "2"}))
            answer_of(kept)
            silent = [connect(proxy.port) for _ in range(2)]
            silent[1].sendall(b"POST /v1/chat")
            eventually(lambda: _open(proxy) == 3)
            with connect(proxy.port) as newer, connect(proxy.port) as newest:
                for sock in (newer, newest):
                    sock.sendall(raw_request(headers={"x-mock-output-tokens": "2"}))
                    answer_of(sock)
                assert kept.recv(65536) == b""  # it had been without one for longest
                assert silent[0].recv(65536) == b""
                assert _open(proxy) == 3
                silent[1].sendall(raw_request(headers={"x-mock-output-tokens": "2"})[13:])
                answer_of(silent[1])
        for sock in silent:
            sock.close()
        idle = [connect(proxy.admin_port) for _ in range(200)]
        assert call(proxy.admin_port, "/healthz", method="GET", body=None).status == 200
        for sock in idle:
            sock.close()


def test_a_stream_to_a_caller_of_http_1_0_ends_with_its_connection() -> None:
    with scripted([SSE + CONTENT, DONE + b"0\r\n\r\n"]) as upstream:
        toml = in_front_of(f"http://127.0.0.1:{upstream.port}")
        with sidecar(toml) as proxy, connect(proxy.port) as sock:
            request = raw_request({**HELLO, "stream": True}, headers={"connection": "keep-alive"})
            sock.sendall(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
            upstream.go()
            upstream.go()
            got = b""
            while data := sock.recv(65536):
                got += data
    assert got.endswith(b"\r\n\r\n" + EVENT + b"data: [DONE]\n\n")


def test_the_limit_leaves_descriptors_for_the_upstreams() -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, 256));"
        "from penstock.listener import connection_limit as c; print(c(10_000), c(10))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    few, wanted = map(int, done.stdout.split())
    assert few < 128  # each may need an upstream connection beside its own
    assert wanted == 10
    assert connection_limit(7) == 7


def test_a_wrong_method_is_told_the_right_one(shared: SidecarThread) -> None:
    assert call(shared.port, CHAT, method="GET", body=None).headers["allow"] == "POST"
    assert call(shared.port, "/v1/models", method="PUT").headers["allow"] == "GET, HEAD"
    answer = call(shared.admin_port, "/healthz", method="POST")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/health", "/healthz", "/health/", "//healthz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_callers_side_has_a_health_page(shared: SidecarThread, path: str, method: str) -> None:
    answer = call(shared.port, path, method=method, body=None)
    assert (answer.status, answer.body) == (200, b"ok\n" if method == "GET" else b"")
    other = call(shared.port, "/health", method="POST")
    assert (other.status, other.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "*"])
def test_a_load_balancer_may_ask_by_options(shared: SidecarThread, path: str) -> None:
    assert call(shared.port, path, method="OPTIONS", body=None).status == 200


@pytest.mark.parametrize("path", ["/healthz/", "//metrics", "/snapshot?x=1//", "/dashboard/"])
def test_a_slash_too_many_leads_to_the_same_page_of_operators(
    shared: SidecarThread, path: str
) -> None:
    assert call(shared.admin_port, path, method="GET", body=None).status == 200


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no dual stack")
def test_the_address_that_means_all_is_ipv4_too(mock: MockServer) -> None:
    with sidecar(_server(mock, 'host = "::"')) as proxy:
        assert call(proxy.port, "/health", method="GET", body=None).status == 200
        with socket.create_connection(("::1", proxy.port), timeout=20) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            answer_of(sock)


def deaf(port: int) -> socket.socket:
    """Ask for a stream, and read nothing of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.settimeout(20)
    sock.sendall(raw_request({**HELLO, "stream": True}))
    return sock


def test_a_caller_that_reads_nothing_is_cut() -> None:
    endless = [SSE] + [_event("x" * 60_000)] * 400
    with scripted(endless) as upstream:
        config = in_front_of(f"http://127.0.0.1:{upstream.port}")
        config = config.replace("[server]\n", "[server]\nunread_timeout_s = 0.5\n")
        with sidecar(config) as proxy, deaf(proxy.port):
            upstream.go(1000)
            eventually(lambda: len(upstream.requests) == 1)
            eventually(proxy.idle)
            eventually(lambda: _open(proxy) == 0)


@pytest.mark.parametrize("reads", [False, True], ids=["nothing", "slowly"])
def test_callers_that_hardly_read_hold_no_slot_that_others_wait_for(reads: bool) -> None:
    over, began = threading.Event(), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal began
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        long = b"stream" in await reader.readexactly(length)
        began += long
        for piece in [SSE, *[_event("x" * 60_000)] * 400] if long else [answer(200, GOOD)]:
            writer.write(piece)
            await writer.drain()

    def drip(sock: socket.socket) -> None:
        while not over.wait(0.05):
            sock.recv(1000)

    with listening_apart(serve) as port, ExitStack() as slow:
        with sidecar(in_front_of(f"http://127.0.0.1:{port}", window=2)) as proxy:
            callers = [slow.enter_context(deaf(proxy.port)) for _ in range(2)]
            readers = [threading.Thread(target=drip, args=(each,)) for each in callers * reads]
            for each in readers:
                each.start()
            eventually(lambda: began == 2)
            assert call(proxy.port).status == 200
            assert _open(proxy) >= 2  # they are not cut for it
            over.set()
            for each in readers:
                each.join()
            slow.close()
            eventually(lambda: _open(proxy) == 0)
            assert proxy.idle()


async def test_a_streams_head_and_first_piece_are_one_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[bytes] = []
    write = _SelectorSocketTransport.write

    def noting(transport: _SelectorSocketTransport, data: bytes) -> None:
        written.append(bytes(data))
        write(transport, data)

    async def streams(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"three", "more_body": False})

    monkeypatch.setattr(_SelectorSocketTransport, "write", noting)
    sock = bind("127.0.0.1", 0)
    listener = Listener(streams, sock, Bounds())
    await listener.start()
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    await listener.stop(1.0)

    first, *later = written[1:]
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\n3\r\none\r\n")
    assert later == [b"3\r\ntwo\r\n", b"5\r\nthree\r\n0\r\n\r\n"]


def test_the_slot_is_free_when_the_provider_has_ended_whoever_reads() -> None:
    reply = [SSE] + [_event("x" * 60_000)] * 12 + [DONE + b"0\r\n\r\n"]
    with scripted(reply) as upstream:
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}", window=1)) as proxy:
            with deaf(proxy.port) as first, deaf(proxy.port) as second:
                upstream.go(1000)
                eventually(lambda: len(upstream.requests) == 2)
                eventually(proxy.idle)
                for sock in (first, second):  # and nothing is lost for those who read late
                    got = b""
                    while not got.endswith(b"0\r\n\r\n"):
                        got += sock.recv(65536)
                    assert got.count(b"x") >= 12 * 60_000


def _event(text: str) -> bytes:
    data = b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_a_hangup_signal_reads_the_configuration_again(mock: MockServer, tmp_path: Path) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text(in_front_of(mock.url))
    with subprocess.Popen(
        [sys.executable, "-m", "penstock.cli.main", "serve", "-c", str(config)],
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "listening" in line or "127.0.0.1" in line:
                break
        for size, words in (
            (3, "reload: generation 2: scheduler.capacity"),
            (0, "reload: refused, generation 2 goes on"),
        ):
            config.write_text(in_front_of(mock.url, window=size))
            os.kill(process.pid, signal.SIGHUP)
            assert any(words in line for line in process.stderr)
        process.terminate()
        process.stderr.read()
        assert process.wait(20) == 0


def _server(mock: MockServer, line: str) -> str:
    return in_front_of(mock.url).replace("[server]\n", f"[server]\n{line}\n")


def _open(proxy: SidecarThread) -> int:
    assert proxy.running is not None
    return proxy.running.open_connections
