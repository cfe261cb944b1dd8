"""What a caller sends ahead of any answer is bounded in all: heads, and requests behind another."""

import gc
import socket

from penstock.listener import HEADS_AT_ONCE
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
from tests.proxy.test_http import answer_of

BRIEF = {"x-mock-output-tokens": "2"}
STALLED = {"x-mock-fault": "stall"}
LONGEST_BYTES = 1024


def _toml(mock: MockServer, line: str) -> str:
    return in_front_of(mock.url, window=100).replace("[server]\n", f"[server]\n{line}\n")


def _cut(sock: socket.socket) -> bool:
    """Say whether the other side has closed; what it sent before is read."""
    sock.setblocking(False)
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


def test_heads_that_do_not_end_are_bounded_in_all(mock: MockServer) -> None:
    begun = raw_request()[:60].ljust(LONGEST_BYTES - 24, b"x")
    with sidecar(_toml(mock, f"max_head_bytes = {LONGEST_BYTES}")) as proxy:
        callers = [connect(proxy.port) for _ in range(HEADS_AT_ONCE + 50)]
        for caller in callers:
            caller.sendall(begun)
        eventually(lambda: _cut(callers[0]))
        assert not _cut(callers[-1])
        assert call(proxy.port, headers=BRIEF).status == 200
        for caller in callers:
            caller.close()


def test_requests_behind_another_are_bounded_in_all(mock: MockServer) -> None:
    with sidecar(_toml(mock, f"max_head_bytes = {LONGEST_BYTES}")) as proxy:
        padded = raw_request(headers={**BRIEF, "x": "y" * 700})
        callers = [connect(proxy.port) for _ in range(30)]
        for caller in callers:
            caller.sendall(raw_request(headers=STALLED))
            caller.sendall(padded * 30)
        eventually(lambda: _cut(callers[0]))
        assert not _cut(callers[-1])
        with connect(proxy.port) as orderly:
            for _ in range(3):
                orderly.sendall(padded * 20)
                answer_of(orderly, 20)
        for caller in callers:
            caller.close()


def test_a_head_behind_another_request_is_bounded_too(mock: MockServer) -> None:
    with (
        sidecar(_toml(mock, f"max_head_bytes = {LONGEST_BYTES}")) as proxy,
        connect(proxy.port) as caller,
    ):
        caller.sendall(raw_request(headers=STALLED))
        eventually(lambda: proxy.snapshot().in_flight == 1)
        caller.sendall(b"POST / HTTP/1.1\r\n")
        caller.sendall((b"x: " + b"y" * 200 + b"\r\n") * 6)
        assert caller.recv(65536) == b""
        eventually(proxy.idle)


def test_the_head_of_a_request_that_waits_is_held_as_its_body_is(mock: MockServer) -> None:
    large = raw_request(headers={**STALLED, "x": "y" * 20_000})
    with sidecar(_toml(mock, "max_held_bytes = 65536")) as proxy:
        callers = [connect(proxy.port) for _ in range(3)]
        for caller in callers:
            caller.sendall(large)
        eventually(lambda: proxy.snapshot().in_flight == 3)
        refused = call(proxy.port, headers={"x": "y" * 20_000})
        assert refused.status == 503
        assert b"too_many_bytes_waiting" in refused.body
        for caller in callers:
            caller.close()
        eventually(proxy.idle)
        assert "penstock_held_body_bytes 0.0" in proxy.metrics()
        assert call(proxy.port, body=HELLO, headers=BRIEF).status == 200


def test_connections_that_are_left_in_the_middle_leave_nothing(mock: MockServer) -> None:
    def left() -> int:
        gc.collect()
        return sum(type(each).__name__ == "_Connection" for each in gc.get_objects())

    with sidecar(_toml(mock, "")) as proxy:
        before = left()
        for _ in range(5):
            with connect(proxy.port) as caller:
                caller.sendall(raw_request(headers=STALLED))
                eventually(lambda: proxy.snapshot().in_flight == 1)
            eventually(proxy.idle)
        eventually(lambda: left() <= before)
