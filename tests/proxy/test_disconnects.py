"""A caller that goes away, at whatever moment, frees its slot and stops the provider's work."""

import socket
import struct
import threading

import pytest

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    HELLO,
    SidecarThread,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)

LONG = {"x-mock-output-tokens": "100000"}
STREAM = {**HELLO, "stream": True}
LEAVE = pytest.mark.parametrize("how", ["close", "reset"])


def _leave(sock: socket.socket, how: str) -> None:
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _all_quiet(proxy: SidecarThread, mock: MockServer) -> None:
    eventually(proxy.idle)
    eventually(lambda: mock.stats()["in_flight"] == 0)
    assert call(proxy.port, headers={"x-mock-output-tokens": "2"}).status == 200


@LEAVE
def test_while_queued_nothing_was_sent_and_nothing_is_held(mock: MockServer, how: str) -> None:
    def seen() -> int:
        count: int = mock.stats()["requests"].get("/v1/chat/completions", 0)
        return count

    before = seen()
    with sidecar(in_front_of(mock.url, window=1)) as proxy:
        holder = connect(proxy.port)
        holder.sendall(raw_request(STREAM, headers=LONG))
        eventually(lambda: seen() == before + 1)
        waiter = connect(proxy.port)
        waiter.sendall(raw_request())
        eventually(lambda: proxy.snapshot().waiting == 1)

        _leave(waiter, how)

        eventually(lambda: proxy.snapshot().waiting == 0)
        assert proxy.snapshot().in_flight == 1
        assert seen() == before + 1
        holder.close()
        _all_quiet(proxy, mock)


@LEAVE
def test_while_dialling_the_slot_comes_free(mock: MockServer, how: str) -> None:
    # A listener whose queue is full answers no SYN: dialling it hangs.
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
    url = f"http://127.0.0.1:{full.getsockname()[1]}"
    with sidecar(in_front_of(url)) as proxy:
        caller = connect(proxy.port)
        caller.sendall(raw_request())
        eventually(lambda: proxy.snapshot().in_flight == 1)

        _leave(caller, how)

        eventually(proxy.idle)
    for each in (full, *fillers):
        each.close()


@LEAVE
def test_before_the_first_token_the_upstream_call_is_closed(mock: MockServer, how: str) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:
        cancelled = mock.stats()["cancelled"]
        caller = connect(proxy.port)
        caller.sendall(raw_request(STREAM, headers={"x-mock-fault": "slow_first_token:60"}))
        eventually(lambda: mock.stats()["in_flight"] == 1)

        _leave(caller, how)

        eventually(lambda: mock.stats()["cancelled"] == cancelled + 1)
        _all_quiet(proxy, mock)
        page = proxy.metrics()
        assert 'attempts_total{outcome="cancelled",upstream="open"} 1.0' in page


@LEAVE
def test_mid_stream_the_upstream_call_is_closed(mock: MockServer, how: str) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:
        cancelled = mock.stats()["cancelled"]
        caller = connect(proxy.port)
        caller.sendall(raw_request(STREAM, headers=LONG))
        assert b"data:" in caller.recv(65536) + caller.recv(65536)

        _leave(caller, how)

        eventually(lambda: mock.stats()["cancelled"] == cancelled + 1)
        _all_quiet(proxy, mock)


@LEAVE
def test_while_an_unstreamed_reply_is_awaited(mock: MockServer, how: str) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:
        caller = connect(proxy.port)
        caller.sendall(raw_request(headers=LONG))
        eventually(lambda: mock.stats()["in_flight"] == 1)

        _leave(caller, how)

        _all_quiet(proxy, mock)


@LEAVE
def test_while_its_body_is_on_the_way(shared: SidecarThread, mock: MockServer, how: str) -> None:
    caller = connect(shared.port)
    caller.sendall(raw_request()[:-5])

    _leave(caller, how)

    _all_quiet(shared, mock)


def test_while_waiting_for_a_retry(mock: MockServer) -> None:
    with sidecar(in_front_of(mock.url)) as proxy:
        caller = connect(proxy.port)
        caller.sendall(raw_request(headers={"x-mock-fault": "status:503"}))
        eventually(lambda: proxy.snapshot().waiting + proxy.snapshot().deferred == 1)

        caller.close()

        eventually(proxy.idle)


def test_a_crowd_that_leaves_at_random_leaves_nothing_behind() -> None:
    slow = {"model": "slots", "slots": 4, "tokens_per_s": 400.0, "ttft_s": 0.01}
    with (
        MockServer(MockSettings(provider=slow)) as mock,
        sidecar(in_front_of(mock.url, window=4)) as proxy,
    ):
        callers = []
        for number in range(60):
            caller = connect(proxy.port)
            body = STREAM if number % 2 else HELLO
            caller.sendall(raw_request(body, headers={"x-mock-output-tokens": "40"}))
            callers.append(caller)
        # Each leaves at its own moment: some queued, some dialling, some in mid-stream.
        leavers = [
            threading.Timer(0.01 * number, _leave, (caller, "reset" if number % 3 else "close"))
            for number, caller in enumerate(callers)
        ]
        for leaver in leavers:
            leaver.start()
        for leaver in leavers:
            leaver.join()
        _all_quiet(proxy, mock)
