"""Bytes that bring a reply no further are no sign of life: an upstream holds no slot with them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.listening import listening_apart
from tests.proxy.sidecars import GOOD_REPLY, HELLO, call, connect, raw_request, sidecar

PAUSE_S = 0.05
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
BEGUN = STREAM + b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
PAGE = b"HTTP/1.1 400 No\r\ntransfer-encoding: chunked\r\n\r\n"
LARGE = b"x: " + b"y" * 60_000 + b"\r\n"
TOML = """
[server]
port = 0
[admin]
port = 0
[scheduler]
max_attempts = 1
[[upstreams]]
name = "odd"
base_url = "http://127.0.0.1:{port}/v1"
auth = "none"
first_byte_timeout_s = 0.5
idle_timeout_s = 0.5
"""


@contextmanager
def upstream(begins: bytes, goes_on: bytes) -> Iterator[int]:
    """Begin a reply, and go on for ever; the second call gets a good one. Yield the port."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        if asked > 1:
            writer.write(GOOD_REPLY)
            return
        writer.write(begins)
        while not writer.is_closing():
            writer.write(goes_on)
            await writer.drain()
            await asyncio.sleep(PAUSE_S)

    with listening_apart(serve) as port:
        yield port


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("begins", "goes_on", "status"),
    [
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n", 504),
        (b"HTTP/1.1 200 OK\r\nx: ", b"y", 504),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", 504),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 502),
        (b"HTTP/1.1 200 OK\r\n", LARGE, 502),
        (PAGE, b"1\r\na\r\n", 400),
    ],
    ids=["interim", "a head by bytes", "a head by lines", "a flood", "a long head", "an error"],
)
def test_an_answer_that_does_not_come_is_given_up(
    begins: bytes, goes_on: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.proxy.failures.ERROR_S", 0.5)
    with upstream(begins, goes_on) as port, sidecar(TOML.format(port=port)) as proxy:
        assert call(proxy.port).status == status
        assert call(proxy.port).status == 200


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [(BEGUN + b"0\r\n", b"x: y\r\n"), (BEGUN + b"5;a=", b"y"), (BEGUN + b"0\r\n", LARGE)],
    ids=["trailers", "a chunk's extension", "long trailers"],
)
def test_a_stream_that_goes_no_further_is_cut(begins: bytes, goes_on: bytes) -> None:
    with upstream(begins, goes_on) as port, sidecar(TOML.format(port=port)) as proxy:
        with connect(proxy.port) as caller:
            caller.sendall(raw_request({**HELLO, "stream": True}))
            got = b""
            while data := caller.recv(65536):
                got += data
        assert EVENT in got
        assert not got.endswith(b"0\r\n\r\n")
        assert call(proxy.port).status == 200
