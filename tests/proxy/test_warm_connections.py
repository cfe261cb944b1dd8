"""A connection that breaks before it answers: who sends again, and whether it is counted."""

import asyncio

import pytest

from penstock.proxy.upstream.address import Address
from penstock.proxy.upstream.errors import DialError, ResetError
from penstock.proxy.upstream.pool import Pool
from tests.proxy.sidecars import call, in_front_of, sidecar
from tests.proxy.test_relay import Scripted

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
HEAD = b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"


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
        writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        stated = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
        self.requests.append(head + await reader.readexactly(int(stated)))


async def twice(upstream: Fickle, *, idle_s: float, at_once: bool = False) -> None:
    """Send two requests over one pool, `idle_s` apart by its clock; it may stand still then."""
    pool = Pool(Address.parse(f"http://127.0.0.1:{upstream.port}/v1"))
    try:
        first = await pool.send(HEAD, b"{}")
        assert await first.chunk() == b"{}"
        clock, began, later_s = pool.now, pool.now(), 0.0
        pool.now = lambda: (began if at_once else clock()) + later_s
        first.close()
        later_s = idle_s
        while not upstream.reads and pool.open_connections:
            await asyncio.sleep(0.001)
        second = await pool.send(HEAD, b"{}")
        assert await second.chunk() == b"{}"
        second.close()
    finally:
        pool.close()


@pytest.mark.parametrize("idle_s", [0.0, 20.0])
async def test_what_was_read_and_not_answered_is_not_sent_again_in_silence(idle_s: float) -> None:
    with Fickle(after_s=0.1) as upstream:
        with pytest.raises(ResetError):
            await twice(upstream, idle_s=idle_s)

    assert (len(upstream.requests), upstream.connections) == (2, 1)


async def test_a_busy_connection_that_breaks_at_once_is_not_sent_again_in_silence() -> None:
    with Fickle() as upstream:
        with pytest.raises(ResetError):
            await twice(upstream, idle_s=0.9, at_once=True)

    assert (len(upstream.requests), upstream.connections) == (2, 1)


async def test_a_goodbye_that_crosses_a_request_after_a_long_idle_time_is_nobodys_problem() -> None:
    with Fickle() as upstream:
        await twice(upstream, idle_s=1.0, at_once=True)

    assert upstream.connections == 2


async def test_a_connection_that_is_known_to_be_closed_is_replaced_in_silence() -> None:
    with Fickle(reads=False) as upstream:
        await twice(upstream, idle_s=0.0)

    assert (len(upstream.requests), upstream.connections) == (2, 2)


def test_a_request_that_may_have_been_acted_on_goes_out_again_as_a_counted_attempt() -> None:
    with Fickle() as upstream, sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
        assert [call(proxy.port).status for _ in range(2)] == [200, 200]
        page = call(proxy.admin_port, "/metrics", method="GET", body=None).body.decode()

    assert len(upstream.requests) == 3
    assert 'outcome="broken",upstream="open"} 1.0' in page


async def test_a_name_that_cannot_be_encoded_is_a_failed_dial() -> None:
    name = b"foo..bar"
    pool = Pool(Address(name.decode(), 80, tls=False, host_header=name, prefix=b""))

    with pytest.raises(DialError, match=r"foo\.\.bar:80"):
        await pool.send(b"GET / HTTP/1.1\r\n\r\n", b"")
