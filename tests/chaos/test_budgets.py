"""Readers of foreign bytes look at each byte once: what is hostile costs no more than what is long.

Each of these took from a minute to hours where a reader went back to the beginning; now a second at
most. The time-out is there to end such a run, not to measure.
"""

import gzip
import tracemalloc
from collections.abc import Callable

import pytest
from backports import zstd

from penstock.calls.facts import MOST_IDS, references_of
from penstock.calls.form import MOST_PARTS, FormError, form_of
from penstock.wire import jsonio
from penstock.wire.encoding import MEMBERS_MOST, EncodingError, Inflater, unpacked
from penstock.wire.endpoint import Kind
from penstock.wire.sse import MAX_EVENT_BYTES, SseSplitter
from penstock.wire.stream import StreamReader
from penstock.wire.usage import Usage
from penstock.wire.usage_tap import INFLATED_AT_ONCE, usage_tap

MB = 1 << 20
SKIPPED = b"\x50\x2a\x4d\x18\0\0\0\0"
"""A zstd frame that holds nothing (RFC 8878, section 3.1.2)."""

pytestmark = pytest.mark.timeout(120)


def in_pieces(feed: Callable[[bytes], object], data: bytes, step: int) -> None:
    for start in range(0, len(data), step):
        feed(data[start : start + step])


def test_a_line_that_comes_byte_by_byte_is_looked_at_once() -> None:
    reader = StreamReader(Kind.CHAT)
    usage = b',"usage":{"prompt_tokens":9,"completion_tokens":7}}\n\n'

    in_pieces(reader.feed, b'data: {"x":"' + b"x" * MB + b'"' + usage, 2)

    assert reader.usage() == Usage(7, 9)


def test_an_event_of_more_lines_than_are_kept_is_read_by_its_ends() -> None:
    reader = StreamReader(Kind.CHAT)
    line = b"data: " + b"x" * 1000 + b"\n"

    in_pieces(reader.feed, b'data: {"x":"\n' + line * 3000, 64_000)
    reader.feed(b'data: ","usage":{"prompt_tokens":9,"completion_tokens":7}}\n\n')

    assert reader.usage() == Usage(7, 9)


def test_an_event_without_an_end_is_not_kept() -> None:
    splitter = SseSplitter()
    tracemalloc.start()
    for _ in range(100):
        assert list(splitter.feed(b"data: xy\n" * 10_000)) == []
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert splitter.lost
    assert peak_bytes < 6 * MAX_EVENT_BYTES
    assert list(splitter.feed(b"\n"))  # it ends
    assert list(splitter.feed(b"data: y\n\n")) == [b"y"]  # and the next one is read


def test_a_piece_that_unpacks_to_very_much_is_read_no_further() -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"completion_tokens":7}}\n\ndata: [DONE]\n\n'
    for count, said in ((INFLATED_AT_ONCE // len(event) - 9, 7), (10 * MB // len(event), None)):
        tap = usage_tap(Kind.CHAT, "gzip", is_stream=True)
        tap.feed(gzip.compress(event * count + usage))
        assert tap.usage().output_tokens == said
        assert tap.whole


def test_of_very_many_choices_some_are_followed() -> None:
    tap = usage_tap(Kind.CHAT, "", is_stream=True)
    tracemalloc.start()
    for start in range(0, 100_000, 1000):
        tap.feed(b"".join(
            b'data: {"choices":[{"index":%d,"delta":{"content":"a"}}]}\n\n' % index
            for index in range(start, start + 1000)
        ))  # fmt: skip
    kept_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept_bytes < MB
    assert not tap.whole


def test_a_usage_that_is_named_over_and_over_is_looked_for_a_few_times() -> None:
    tap = usage_tap(Kind.CHAT, "", is_stream=True)
    event = b"data: " + b'{"usage":' * (2 * MB // 9) + b"\n\n"
    for _ in range(30):
        in_pieces(tap.feed, event, 1 << 18)

    assert tap.usage().prompt_tokens is None


@pytest.mark.parametrize(
    ("coding", "member"),
    [("gzip", gzip.compress(b"")), ("zstd", zstd.compress(b"")), ("zstd", SKIPPED)],
    ids=["gzip", "zstd", "zstd, skipped"],
)
def test_members_that_hold_nothing_are_not_looked_at_for_ever(coding: str, member: bytes) -> None:
    with pytest.raises(EncodingError) as refused:
        unpacked(member * (32 * MB // len(member)), coding, at_most_bytes=32 * MB)
    assert refused.value.too_large

    tap = usage_tap(Kind.CHAT, coding, is_stream=True)
    in_pieces(tap.feed, member * (4 * MB // len(member)), 1 << 18)
    assert tap.whole  # unread: nothing speaks against it


def test_as_many_members_as_a_stream_may_have_are_read_however_they_are_cut() -> None:
    inflater = Inflater()
    packed = gzip.compress(b"hello") * 3000
    got: list[bytes] = []

    in_pieces(lambda piece: got.extend(inflater.feed(piece)), packed, 100_000)

    assert MEMBERS_MOST > 3000
    assert b"".join(got) == b"hello" * 3000


def test_padding_behind_the_last_member_is_passed_over_however_it_is_cut() -> None:
    packed = gzip.compress(b"hello") + b"\0" * 100_000
    assert unpacked(packed, "gzip", at_most_bytes=100) == b"hello"


@pytest.mark.parametrize(
    "text",
    [
        lambda: b"x" + (b"1" * 299 + b" ") * 100_000,
        lambda: b'{"a":"' + b"\\ud83d" * 5_000_000,
        lambda: b'"' * 30_000_001,
        lambda: b"[" * 30_000_000,
    ],
    ids=["digits", "half emoji", "quotes", "depth"],
)
def test_what_is_no_json_is_known_for_it(text: Callable[[], bytes]) -> None:
    assert jsonio.loads_object(text()) is None


@pytest.mark.parametrize(
    ("text", "too_many"),
    [
        (lambda: b"[" + b"[]," * 10_000_000 + b"1]", True),
        (lambda: b"[" + b'"abcd",' * 4_000_000 + b"1]", True),
        (lambda: b'{"a":"' + b"1,[{" * 8_000_000 + b'"}', False),
        (lambda: b'["' + b'\\",' * 8_000_000 + b'"]', False),
        (lambda: b"[" + b"1," * (jsonio.MOST_VALUES - 2) + b"1]", False),
        (lambda: b"[" + b"1," * jsonio.MOST_VALUES + b"1]", True),
    ],
    ids=["lists", "texts", "commas in a text", "quotes in a text", "the most", "one more"],
)
def test_values_are_counted_without_being_read(text: Callable[[], bytes], too_many: bool) -> None:
    assert jsonio.has_too_many_values(text()) == too_many


def test_a_form_of_very_many_parts_is_refused() -> None:
    part = b"--b\r\ncontent-disposition: form-data; name=a\r\n\r\nx\r\n"
    kind = "multipart/form-data; boundary=b"

    assert len(form_of(kind, part * MOST_PARTS + b"--b--\r\n")["a"]) == MOST_PARTS
    with pytest.raises(FormError, match="parts"):
        form_of(kind, part * 600_000 + b"--b--\r\n")


def test_a_form_whose_boundary_almost_stands_in_it_over_and_over_is_refused() -> None:
    head = b"--b\r\ncontent-disposition: form-data; name=a\r\n\r\n"
    kind = "multipart/form-data; boundary=b"

    assert form_of(kind, head + b"\r\n--" * 100_000 + b"\r\n--b--\r\n")["a"]
    with pytest.raises(FormError, match="parts"):
        form_of(kind, head + b"\r\n--bx" * 100_000 + b"\r\n--b--\r\n")


def test_a_list_of_very_many_ids_is_cut() -> None:
    assert len(references_of({"conversation": ["conv_1"] * 100_000})) == MOST_IDS
