"""A connection that breaks before it answers: who sends again, and whether it is counted."""

import asyncio
import gc

import pytest
from aiohttp.client_proto import ResponseHandler

from penstock.proxy.config.forward_proxy import Address
from penstock.proxy.declined import CrossedError, DialError, MalformedError
from penstock.proxy.upstream import http
from penstock.proxy.upstream.http import HttpClient, Timeouts
from tests.proxy.sidecars import GOOD_REPLY, call, in_front_of, sidecar
from tests.proxy.test_relay import Scripted

OK = GOOD_REPLY


class Fickle(Scripted):
    """Answers a connection's first request; reads the second and closes `after_s` later."""

    def __init__(self, *, after_s: float = 0.0, reads: bool = True) -> None:
        super().__init__([OK])
        self.after_s = after_s
        self.reads = reads
        self.connections = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._request(reader)
            writer.write(OK)
            if self.reads:
                await self._request(reader)
                await asyncio.sleep(self.after_s)
        except asyncio.IncompleteReadError:
            pass

    async def _request(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        stated = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
        self.requests.append(head + await reader.readexactly(int(stated)))


async def twice(
    upstream: Fickle, *, method: str = "POST", seen_closing: bool = False, fresh: bool = False
) -> None:
    """Send two requests, one after the other, over one client's connections."""
    client = HttpClient(Address.parse(f"http://127.0.0.1:{upstream.port}/v1"), Timeouts())
    try:
        for _ in range(2):
            answer = await client.send(method, "/x", [], b"{}", fresh=fresh)
            assert (await answer.chunk()).startswith(b'{"choices"')
            answer.close()
            while seen_closing and client.open_connections:
                await asyncio.sleep(0.001)
    finally:
        await client.close()


def goodbye_after(monkeypatch: pytest.MonkeyPatch, *, long_idle_s: float, at_once_s: float) -> None:
    """Set what counts as idle for long and as a goodbye at once, whatever the machine's speed."""
    monkeypatch.setattr(http, "LONG_IDLE_S", long_idle_s)
    monkeypatch.setattr(http, "AT_ONCE_S", at_once_s)


@pytest.mark.parametrize(("long_idle_s", "at_once_s"), [(60.0, 60.0), (0.0, 0.0)])
async def test_what_was_read_and_not_answered_is_not_sent_again_in_silence(
    monkeypatch: pytest.MonkeyPatch, long_idle_s: float, at_once_s: float
) -> None:
    goodbye_after(monkeypatch, long_idle_s=long_idle_s, at_once_s=at_once_s)
    with Fickle() as upstream:
        with pytest.raises(CrossedError):
            await twice(upstream)

    assert (len(upstream.requests), upstream.connections) == (2, 1)


async def test_what_may_be_asked_twice_is_asked_again_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    goodbye_after(monkeypatch, long_idle_s=60.0, at_once_s=0.0)
    with Fickle() as upstream:
        await twice(upstream, method="PUT")

    assert (len(upstream.requests), upstream.connections) == (3, 2)


async def test_a_goodbye_that_crosses_a_request_after_a_long_idle_time_is_nobodys_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    goodbye_after(monkeypatch, long_idle_s=0.0, at_once_s=60.0)
    with Fickle() as upstream:
        await twice(upstream)

    assert upstream.connections == 2


async def test_a_connection_that_is_known_to_be_closed_is_replaced_in_silence() -> None:
    with Fickle(reads=False) as upstream:
        await twice(upstream, seen_closing=True)

    assert (len(upstream.requests), upstream.connections) == (2, 2)


class Chatty(Scripted):
    """Answers each request, and says more than it was asked: with the answer, or a moment later."""

    def __init__(self, extra: bytes, *, later: bool) -> None:
        super().__init__([])
        self.extra = extra
        self.later = later
        self.answered = self.said_more = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                stated = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
                await reader.readexactly(int(stated))
                self.answered += 1
                body = b'{"mine": %d}' % self.answered
                answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
                if self.later:
                    writer.write(answer)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                    writer.write(self.extra)
                    await writer.drain()
                    self.said_more += 1
                else:
                    writer.write(answer + self.extra)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass


POISON = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npoisoned"


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("extra", [POISON, POISON * 2, POISON[:25], b"0\r\n\r\n", b"garbage"])
async def test_bytes_that_answer_no_request_never_reach_another_caller(
    extra: bytes, later: bool
) -> None:
    with Chatty(extra, later=later) as upstream:
        client = HttpClient(Address.parse(f"http://127.0.0.1:{upstream.port}/v1"), Timeouts())
        try:
            for number in range(1, 9):
                try:
                    answer = await client.send("POST", "/x", [], b"{}")
                except MalformedError:  # garbage in the same breath: this answer is not trusted
                    continue
                assert await answer.chunk() == b'{"mine": %d}' % number
                answer.close()
                while later and upstream.said_more < number:  # while nothing is asked
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.001)  # the loop reads what has come
        finally:
            await client.close()


async def test_garbage_behind_a_last_chunk_with_trailers_costs_no_reply() -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
    with Scripted([answer + b"000;a=b\r\nx-cost: 1\r\nx-time: 2\r\n\r\ngarbage"]) as upstream:
        client = HttpClient(Address.parse(f"http://127.0.0.1:{upstream.port}/v1"), Timeouts())
        for _ in range(2):
            upstream.go(1)
            came = await client.send("POST", "/x", [], b"{}")
            assert (await came.chunk(), await came.chunk()) == (b"{}", b"")
            came.close()
        await client.close()


def test_a_request_that_may_have_been_acted_on_goes_out_again_as_a_counted_attempt() -> None:
    with Fickle() as upstream, sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
        assert [call(proxy.port).status for _ in range(2)] == [200, 200]
        page = proxy.metrics()

    assert len(upstream.requests) == 3
    assert 'outcome="broken",upstream="open"} 1.0' in page


def test_an_upstream_that_closes_after_each_reply_costs_no_call_and_is_not_blamed() -> None:
    calls = 12  # of which a budget for retries allows three
    with Fickle() as upstream, sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
        assert [call(proxy.port).status for _ in range(calls)] == [200] * calls
        page = proxy.metrics()

    assert upstream.connections == calls
    assert f'outcome="broken",upstream="open"}} {calls - 1}.0' in page
    assert 'penstock_open_circuits{upstream="open"} 0.0' in page


async def test_where_a_fresh_connection_is_wanted_no_warm_one_is_used() -> None:
    with Fickle() as upstream:
        await twice(upstream, fresh=True)

    assert (len(upstream.requests), upstream.connections) == (2, 2)


async def test_a_name_that_cannot_be_encoded_is_a_failed_dial() -> None:
    client = HttpClient(Address("foo..bar", 80, tls=False, base_url="http://foo..bar"), Timeouts())

    with pytest.raises(DialError, match=r"foo\.\.bar:80"):
        await client.send("GET", "/", [], b"")
    await client.close()


async def test_a_closed_connection_is_not_kept_for_as_long_as_an_answer_may_take() -> None:
    with Scripted([OK], close=True) as upstream:
        upstream.go(3)
        client = HttpClient(Address.parse(f"http://127.0.0.1:{upstream.port}/v1"), Timeouts())
        for _ in range(3):
            answer = await client.send("POST", "/x", [], b"{}")
            while not answer.complete:
                await answer.chunk()
            answer.close()
            while client.open_connections:
                await asyncio.sleep(0.001)
        await client.close()
        del answer
        gc.collect()

        assert not [each for each in gc.get_objects() if isinstance(each, ResponseHandler)]


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_whose_last_byte_fills_the_room_is_complete(chunked: bool) -> None:
    body = b"x" * (2 * http.BUFFER_BYTES + 1)  # at its last byte reading is held back
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    reply = head + body
    if chunked:
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        reply = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with Scripted([reply]) as upstream:
        upstream.go(2)
        client = HttpClient(Address.parse(f"http://127.0.0.1:{upstream.port}/v1"), Timeouts())
        try:
            for _ in range(2):
                answer = await client.send("POST", "/x", [], b"{}")
                while answer._content.total_bytes < len(body):  # it is read by nobody yet
                    await asyncio.sleep(0.001)
                async with asyncio.timeout(20):
                    got = b""
                    while not answer.complete:
                        got += await answer.chunk()
                assert got == body
                answer.close()
            assert client.open_connections == 1
        finally:
            await client.close()
