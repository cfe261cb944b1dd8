"""From its first bytes an answer shows how the rest of it passes."""

import gzip

import pytest

from penstock.wire.endpoint import Kind
from penstock.wire.opening import Form, Opening
from penstock.wire.usage_tap import usage_tap

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
PIECE = b'{"candidates":[{"content":{"parts":[{"text":"a \\" } {"}]}}]}'
LINES = PIECE + b"\n" + PIECE + b"\n"
LISTED = b"[" + PIECE + b"\n,\r\n" + PIECE + b"]"


def form_of(body: bytes, step: int, encoding: str = "", *, streams: bool = True) -> Form:
    opening = Opening(Kind.CHAT, encoding, is_events=False, streams=streams)
    for at in range(0, len(body), step):
        opening.take(body[at : at + step])
    return opening.form


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("body", "form"),
    [
        (EVENT, Form.EVENTS),
        (LINES, Form.SERIES),
        (LISTED, Form.SERIES),
        (PIECE + PIECE, Form.SERIES),
        (b"\x1e" + PIECE + b"\n\x1e" + PIECE, Form.SERIES),
        (PIECE + b" \n", Form.WHOLE),
        (b"[" + PIECE + b"]", Form.WHOLE),
        (b"<html>", Form.WHOLE),
    ],
    ids=["events", "lines", "list", "one behind the other", "RFC 7464", "one", "of one", "page"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_a_stream_of_json_is_told_from_a_whole_reply(
    body: bytes, form: Form, packed: bool, step: int
) -> None:
    encoding = "gzip" if packed else ""
    assert form_of(gzip.compress(body) if packed else body, step, encoding) is form
    assert form_of(body, step, streams=False) is Form.WHOLE


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("body", [LINES, LISTED], ids=["lines", "list"])
def test_a_stream_of_json_is_read_along_to_its_end(body: bytes, step: int) -> None:
    tap = usage_tap(Kind.CHAT, "", is_stream=False, is_series=True)
    assert not tap.started
    for at in range(0, len(body), step):
        tap.feed(body[at : at + step])
    assert tap.started
    assert tap.whole
    cut = usage_tap(Kind.CHAT, "", is_stream=False, is_series=True)
    cut.feed(body.rstrip()[:-1])
    assert not cut.whole


def test_a_piece_too_large_to_be_kept_is_not_kept() -> None:
    tap = usage_tap(Kind.CHAT, "", is_stream=False, is_series=True)
    tap.feed(b'{"text":"')
    for _ in range(20):
        tap.feed(b"x" * 100_000)
    assert tap.whole  # nobody knows better
    assert tap.error is None
