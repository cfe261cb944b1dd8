"""Compressed replies and the ends of large ones are read, within bounds."""

import gzip
import json
import zlib
from collections.abc import Callable

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.encoding import EncodingError, Inflater, plain, unpacked
from penstock.wire.endpoint import Kind
from penstock.wire.usage import ENDS_BYTES, UNKNOWN, Ends, Usage
from penstock.wire.usage_tap import usage_tap

VECTORS = b'{"object":"list","data":[' + b"0.125," * 200_000 + b"0]"
STATED = b',"model":"m","usage" : {"prompt_tokens":9,"total_tokens":9}}'


RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "X-GZIP": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "br": lambda text: brotli.compress(text, quality=5),
}
CODINGS = pytest.mark.parametrize("coding", sorted(PACKED))


@CODINGS
def test_what_is_packed_is_read(coding: str) -> None:
    for text in (b"", b"hello", b"the mill turns " * 100_000):
        packed = PACKED[coding](text)
        assert plain(packed, coding) == text
        assert unpacked(packed, coding, at_most_bytes=len(text)) == text


@CODINGS
def test_a_bomb_is_put_aside_and_known_for_one(coding: str) -> None:
    bomb = PACKED[coding](b"\0" * 50_000_000)
    assert plain(bomb, coding) == b""
    with pytest.raises(EncodingError) as refused:
        unpacked(bomb, coding, at_most_bytes=1 << 20)
    assert refused.value.too_large


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_what_is_not_of_its_coding_is_known_for_that(coding: str) -> None:
    assert plain(b"hello there", coding) == b""
    with pytest.raises(EncodingError, match=f"not what content-encoding '{coding}' says"):
        unpacked(b"hello there", coding, at_most_bytes=99)


def test_bodies_may_be_packed_twice_and_in_members() -> None:
    assert plain(gzip.compress(zlib.compress(b"hello")), "deflate, gzip") == b"hello"
    assert plain(gzip.compress(b"hel") + gzip.compress(b"lo"), "gzip") == b"hello"
    assert plain(gzip.compress(b"hello") + b"\0" * 9, "gzip") == b"hello"
    assert plain(zstd.compress(b"hel") + zstd.compress(b"lo"), "zstd") == b"hello"
    assert plain(RAW.compress(b"hello") + RAW.flush(), "deflate") == b"hello"
    assert plain(b"hello", "identity") == b"hello"


@pytest.mark.parametrize("encoding", ["compress", "gzip, gzip, gzip, gzip", "gzip;q=1", "x" * 999])
def test_a_coding_that_nobody_knows_is_named_with_those_that_are(encoding: str) -> None:
    with pytest.raises(EncodingError, match="is not taken: known are br, deflate, gzip") as refused:
        unpacked(b"hello", encoding, at_most_bytes=99)
    assert refused.value.unknown


def test_a_frame_cannot_ask_for_gigabytes_of_memory() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27}
    packer = zstd.ZstdCompressor(options=options)
    frame = packer.compress(b"hello") + packer.flush()
    assert plain(frame, "zstd") == b""


@given(
    st.sampled_from(["gzip", "deflate", "zstd", "br"]), st.binary(max_size=2000), st.integers(1, 40)
)
def test_where_the_chunks_are_cut_makes_no_difference(coding: str, text: bytes, size: int) -> None:
    packed = PACKED[coding](text * 200)
    inflater = Inflater(coding)
    pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
    found = b"".join(piece for data in pieces for piece in inflater.feed(data))
    assert found == text * 200


@pytest.mark.parametrize("size", [1000, 100_000, 10_000_000])
def test_usage_at_the_end_of_a_large_reply(size: int) -> None:
    reply = VECTORS + STATED
    reader = usage_tap(Kind.EMBEDDINGS, "", is_stream=False)
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
    for encoding, data in (("compress", b"xyz"), ("gzip", b"no gzip at all")):
        reader = usage_tap(Kind.CHAT, encoding, is_stream=True)
        reader.feed(data)
        assert (reader.whole, reader.heard, reader.error) == (True, True, None)
        assert reader.usage() == UNKNOWN
