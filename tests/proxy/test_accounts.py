"""Callers that bring their own keys have accounts of their own: limits, pauses, spent quotas."""

import asyncio
import json
import select
from contextlib import ExitStack
from functools import partial

from tests.proxy.sick import GOOD, answer
from tests.proxy.sidecars import (
    HELLO,
    SidecarThread,
    call,
    connect,
    eventually,
    raw_request,
    sidecar,
)
from tests.proxy.test_relay import Scripted


class Accounts(Scripted):
    """A provider at which the account of one key is spent."""

    def __init__(self, spent: str) -> None:
        super().__init__([])
        self.spent = spent

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                self.requests.append(head)
                broke = b"bearer " + self.spent.encode() in head
                error = json.dumps({"error": {"code": "insufficient_quota"}}).encode()
                more = "retry-after: 86400\r\n"
                writer.write(answer(429, error, more=more) if broke else answer(200, GOOD))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass


def test_one_callers_spent_account_shuts_out_nobody_else() -> None:
    with Accounts("poor") as provider:
        url = f"http://127.0.0.1:{provider.port}/v1"
        config = f'[server]\nport = 0\n[admin]\nport = 0\n[[upstreams]]\nbase_url = "{url}"\n'
        with sidecar(config) as proxy:

            def ask(key: str) -> int:
                return call(proxy.port, headers={"authorization": f"Bearer {key}"}).status

            assert [ask("rich"), ask("poor"), ask("rich"), ask("other"), ask("poor")] == [
                200, 429, 200, 200, 429,
            ]  # fmt: skip
            pages = [
                call(proxy.admin_port, page, method="GET", body=None).body
                for page in ("/snapshot", "/metrics", "/decisions")
            ]
    assert not any(key in page for page in pages for key in (b"rich", b"poor"))
    assert sum(b"bearer poor" in head for head in provider.requests) == 1  # asked once, then known


def test_the_bytes_of_waiting_bodies_are_bounded_and_given_back() -> None:
    with Scripted([answer(200, GOOD)]) as provider:
        url = f"http://127.0.0.1:{provider.port}/v1"
        config = (
            "[server]\nport = 0\nmax_held_bytes = 100_000\n[admin]\nport = 0\n[[upstreams]]\n"
            f'base_url = "{url}"\nauth = "none"\n'
        )
        large = {**HELLO, "user": "x" * 60_000}
        with sidecar(config) as proxy, connect(proxy.port) as first:
            first.sendall(raw_request(large))
            eventually(lambda: len(provider.requests) == 1)
            refused = call(proxy.port, body=large)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"]["code"] == "too_many_bytes_waiting"
            with connect(proxy.port) as gone:  # one that is given up holds nothing any more
                gone.sendall(raw_request(large)[:20_000])
            provider.go(100)
            assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
            eventually(lambda: call(proxy.port, body=large).status == 200)


def test_bodies_that_do_not_end_keep_out_nobody_whose_body_comes_at_once() -> None:
    with Scripted([answer(200, GOOD)]) as provider:
        provider.go(100)
        url = f"http://127.0.0.1:{provider.port}/v1"
        config = (
            "[server]\nport = 0\nmax_held_bytes = 400_000\n[admin]\nport = 0\n[[upstreams]]\n"
            f'base_url = "{url}"\nauth = "none"\n'
        )
        large = raw_request({**HELLO, "user": "x" * 390_000})
        with sidecar(config) as proxy, ExitStack() as stack:
            claims = [stack.enter_context(connect(proxy.port)) for _ in range(8)]
            for sock in claims:
                sock.sendall(large[:1000])  # nobody is believed what it says that it will send
            assert call(proxy.port, body={**HELLO, "user": "x" * 50_000}).status == 200
            for sock in claims:
                sock.sendall(large[1000:100_000])
            refused = [sock for sock in claims if select.select([sock], [], [], 1.0)[0]]
            assert len(refused) >= 6
            assert refused[0].recv(65536).startswith(b"HTTP/1.1 503 ")
            assert call(proxy.port, body={**HELLO, "user": "x" * 50_000}).status == 200


def _holds(proxy: SidecarThread, size_bytes: int) -> bool:
    assert proxy.running is not None
    return proxy.running.sidecar.room.used_bytes >= size_bytes


def test_forms_to_an_upstream_that_takes_none_are_held_within_the_bound() -> None:
    form = raw_request(
        path="/v1/files", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    form = form.replace(b"content-length: ", b"content-length: 9")
    with Scripted([answer(200, GOOD)]) as provider, ExitStack() as callers:
        url = f"http://127.0.0.1:{provider.port}/v1"
        config = (
            "[server]\nport = 0\nmax_held_bytes = 4_194_304\n[admin]\nport = 0\n"
            f'[[upstreams]]\nbase_url = "{url}"\nauth = "none"\n'
        )
        with sidecar(config) as proxy:
            for count in (1, 2):
                callers.enter_context(connect(proxy.port)).sendall(form)
                eventually(partial(_holds, proxy, count << 20))
            with connect(proxy.port) as third:
                third.sendall(form)
                assert third.recv(65536).startswith(b"HTTP/1.1 503 ")
            provider.go()
            assert call(proxy.port).status == 200
            callers.close()
            eventually(lambda: not _holds(proxy, 1))


def test_no_callers_bodies_fill_the_room_for_all() -> None:
    with Scripted([answer(200, GOOD)]) as provider:
        url = f"http://127.0.0.1:{provider.port}/v1"
        config = (
            "[server]\nport = 0\nmax_held_bytes = 400_000\n[admin]\nport = 0\n[[upstreams]]\n"
            f'base_url = "{url}"\nauth = "none"\n'
        )
        large = {**HELLO, "user": "x" * 90_000}
        greedy, modest = {"authorization": "Bearer greedy"}, {"authorization": "Bearer modest"}
        with sidecar(config) as proxy, ExitStack() as stack:
            waiting = []
            for size_bytes in (90_000, 180_000, 270_000):
                waiting.append(stack.enter_context(connect(proxy.port)))
                waiting[-1].sendall(raw_request(large, headers=greedy))
                eventually(partial(_holds_over, proxy.admin_port, size_bytes))
            refused = call(proxy.port, body=large, headers=greedy)
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["error"]["code"] == "too_many_bytes_of_caller"
            other = stack.enter_context(connect(proxy.port))
            other.sendall(raw_request(large, headers=modest))
            eventually(lambda: _held_bytes(proxy.admin_port) > 360_000)
            provider.go(100)
            for sock in (*waiting, other):
                assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            assert call(proxy.port, body=large, headers=greedy).status == 200
            assert _held_bytes(proxy.admin_port) == 0
            # No wait makes room for an only body: a caller of whom nothing waits is taken.
            only = raw_request({**HELLO, "user": "x" * 190_000}, headers=greedy)
            sock = stack.enter_context(connect(proxy.port))
            sock.sendall(only[:180_000])
            eventually(partial(_holds_over, proxy.admin_port, 170_000))
            sock.sendall(only[180_000:])
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def _holds_over(admin_port: int, least_bytes: int) -> bool:
    return _held_bytes(admin_port) > least_bytes


def _held_bytes(admin_port: int) -> float:
    page = call(admin_port, "/metrics", method="GET", body=None).body.decode()
    (line,) = (line for line in page.splitlines() if line.startswith("penstock_held_body_bytes "))
    return float(line.split()[1])


def test_no_callers_slow_bodies_keep_out_those_of_others() -> None:
    with Scripted([answer(200, GOOD)]) as provider, ExitStack() as stack:
        provider.go(100)
        url = f"http://127.0.0.1:{provider.port}/v1"
        config = (
            "[server]\nport = 0\nmax_held_bytes = 1_600_000\n[admin]\nport = 0\n[[upstreams]]\n"
            f'base_url = "{url}"\nauth = "none"\n'
        )
        body = {**HELLO, "user": "x" * 290_000}
        proxy = stack.enter_context(sidecar(config))
        for _ in range(8):
            sock = stack.enter_context(connect(proxy.port))
            sock.sendall(raw_request(body, headers={"authorization": "Bearer slow"})[:150_000])
        eventually(lambda: _held_bytes(proxy.admin_port) > 400_000)
        other = stack.enter_context(connect(proxy.port))
        short = {**HELLO, "user": "x" * 120_000}
        data = raw_request(short, headers={"authorization": "Bearer other"})
        held = _held_bytes(proxy.admin_port)
        other.sendall(data[:60_000])
        eventually(lambda: _held_bytes(proxy.admin_port) > held)
        other.sendall(data[60_000:])
        assert other.recv(65536).startswith(b"HTTP/1.1 200 ")
