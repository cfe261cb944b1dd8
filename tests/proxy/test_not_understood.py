"""An answer that is not understood is paid for: it is relayed, and not asked for again."""

import asyncio
import gzip
import json

import pytest

from tests.listening import listening_apart
from tests.proxy.sick import EVENT, GOOD, GOOD_STREAM, answer
from tests.proxy.sidecars import (
    CHAT,
    HELLO,
    call,
    connect,
    in_front_of,
    raw_request,
    sidecar,
)
from tests.proxy.test_relay import scripted

IN_CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + (
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
)
PIECE = b'{"candidates":[{"content":{"parts":[{"text":"well"}]}}],"usageMetadata":{}}'
STREAM = {**HELLO, "stream": True}
DEEP = GOOD[:-1] + b',"x":' + b"[" * 3000 + b"]" * 3000 + b"}"
PACKED = "content-encoding: gzip\r\n"
ANSWERS = {
    "another API's reply": (HELLO, answer(200, PIECE)),
    "a reply nested deeply": (HELLO, answer(200, DEEP)),
    "events, not asked for": (HELLO, answer(200, GOOD_STREAM, "text/event-stream")),
    "events, not asked for, as JSON": (HELLO, answer(200, GOOD_STREAM)),
    "lines of JSON": (STREAM, answer(200, PIECE + b"\n" + PIECE + b"\n", "application/x-ndjson")),
    "a list of JSON": (STREAM, answer(200, b"[" + PIECE + b",\n" + PIECE + b"]")),
    "another API's events": (STREAM, answer(200, b"data: " + PIECE + b"\n\n")),
    "a reply with an odd status": (HELLO, answer(207, GOOD)),
    "a text with a line end in it": (HELLO, answer(200, GOOD.replace(b"well", b"well\n"))),
    "an event nested deeply": (STREAM, answer(200, b"data: " + DEEP + b"\n\n" + GOOD_STREAM)),
    "packed events, as JSON": (STREAM, answer(200, gzip.compress(GOOD_STREAM), more=PACKED)),
    "a packed list": (
        STREAM, answer(200, gzip.compress(b"[" + PIECE + b"," + PIECE + b"]"), more=PACKED)
    ),
    "a reply that unpacks to very much": (
        HELLO, answer(200, gzip.compress(GOOD + b" " * 20_000_000, 1), more=PACKED)
    ),
}  # fmt: skip


@pytest.mark.parametrize("of", ANSWERS)
def test_it_is_asked_for_once_and_relayed_as_it_came(of: str) -> None:
    body, sent = ANSWERS[of]
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"}]")
        asked += 1
        writer.write(sent)
        await writer.drain()

    with listening_apart(serve) as port, sidecar(in_front_of(f"http://127.0.0.1:{port}")) as proxy:
        reply = call(proxy.port, body=body)
        page = proxy.metrics()

    assert (reply.status, asked) == (int(sent[9:12]), 1)
    assert reply.body == sent.partition(b"\r\n\r\n")[2]
    assert 'attempts_total{outcome="complete",upstream="open"} 1.0' in page


def test_json_whose_header_names_a_coding_is_told_as_what_it_is() -> None:
    """Some gateways undo the coding, and pass its header on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]")
        writer.write(answer(200, GOOD, more=PACKED))
        await writer.drain()

    with listening_apart(serve) as port, sidecar(in_front_of(f"http://127.0.0.1:{port}")) as proxy:
        reply = call(proxy.port, CHAT)

    assert (reply.status, reply.json()) == (200, json.loads(GOOD))
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize("apart", [(), (GOOD,)], ids=["at once", "head first"])
@pytest.mark.parametrize("chunked", [False, True], ids=["of stated length", "in chunks"])
def test_what_comes_behind_an_answers_end_is_no_part_of_it(
    chunked: bool, apart: tuple[bytes, ...]
) -> None:
    asked = 0
    sent = answer(200, GOOD) if not chunked else IN_CHUNKS

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await reader.readuntil(b"}]"):
            asked += 1
            rest = sent + b"  \n more"
            for begins in apart:
                piece, begun, rest = rest.partition(begins)
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
                rest = begun + rest
            writer.write(rest)
            await writer.drain()

    with listening_apart(serve) as port, sidecar(in_front_of(f"http://127.0.0.1:{port}")) as proxy:
        replies = [call(proxy.port, CHAT) for _ in range(3)]

    assert [(reply.status, reply.body) for reply in replies] == [(200, GOOD)] * 3
    assert asked == 3


@pytest.mark.parametrize(("first", "rest"), [(b"", b"\n"), (b"[", b",")], ids=["lines", "list"])
def test_a_stream_of_json_passes_piece_by_piece(first: bytes, rest: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [first + PIECE + rest, PIECE + rest, PIECE + (b"]" if first else b"\n")]
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    with scripted([head, *chunks[:2], chunks[2] + b"0\r\n\r\n"]) as upstream:
        with sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy:
            with connect(proxy.port) as caller:
                caller.sendall(raw_request(STREAM))
                upstream.go(3)
                got = b""
                while got.count(PIECE) < 2:
                    got += caller.recv(65536)

                upstream.go()

                while not got.endswith(b"0\r\n\r\n"):
                    got += caller.recv(65536)
    assert got.count(PIECE) == 3
    assert EVENT not in got
