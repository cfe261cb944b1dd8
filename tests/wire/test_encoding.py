"""Compressed replies and the ends of large ones are read, within bounds."""

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.along import along
from penstock.wire.encoding import Inflater, plain
from penstock.wire.endpoint import Kind
from penstock.wire.usage import ENDS_BYTES, UNKNOWN, Ends, Usage

VECTORS = b'{"object":"list","data":[' + b"0.125," * 200_000 + b"0]"
STATED = b',"model":"m","usage" : {"prompt_tokens":9,"total_tokens":9}}'


def test_gzip_and_deflate_are_read_and_what_is_neither_is_not() -> None:
    assert plain(gzip.compress(b"hello"), "gzip") == b"hello"
    assert plain(zlib.compress(b"hello"), "deflate") == b"hello"
    assert plain(b"hello", "identity") == b"hello"
    assert plain(b"hello", "gzip") == b""
    assert plain(b"hello", "br") == b""


def test_a_bomb_is_put_aside() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert plain(bomb, "gzip") == b""


@given(st.binary(max_size=2000), st.integers(1, 40))
def test_where_the_chunks_are_cut_makes_no_difference(text: bytes, size: int) -> None:
    packed = gzip.compress(text * 200)
    inflater = Inflater()
    pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
    found = b"".join(piece for data in pieces for piece in inflater.feed(data))
    assert found == text * 200


@pytest.mark.parametrize("size", [1000, 100_000, 10_000_000])
def test_usage_at_the_end_of_a_large_reply(size: int) -> None:
    reply = VECTORS + STATED
    reader = along(Kind.EMBEDDINGS, "", is_stream=False)
    for at in range(0, len(reply), size):
        reader.feed(reply[at : at + size])
    assert reader.usage() == Usage(0, 9)


def test_usage_at_the_head_of_a_large_reply() -> None:
    ends = Ends()
    ends.feed(b'{"usage":{"prompt_tokens":9},"data":[' + b"0.125," * 200_000)
    assert ends.usage(Kind.EMBEDDINGS) == Usage(0, 9)


def test_usage_that_is_only_talked_about_is_none() -> None:
    said = json.dumps({"text": 'say "usage": {"completion_tokens": 7} ' * 5000})
    ends = Ends()
    ends.feed(said.encode())
    assert len(said) > ENDS_BYTES
    assert ends.usage(Kind.CHAT) == UNKNOWN


def test_an_unreadable_reply_counts_as_whole_and_unknown() -> None:
    for encoding, data in (("br", b"xyz"), ("gzip", b"no gzip at all")):
        reader = along(Kind.CHAT, encoding, is_stream=True)
        reader.feed(data)
        assert (reader.whole, reader.heard, reader.error) == (True, True, None)
        assert reader.usage() == UNKNOWN
