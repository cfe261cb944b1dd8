"""Whether an answer with a good status holds what was asked for."""

import json

import pytest

from penstock.wire.endpoint import Kind
from penstock.wire.verdict import goes_on, is_event_stream, verdict_of_reply

PAID = {"prompt_tokens": 5, "completion_tokens": 0}


@pytest.mark.parametrize("kind", [Kind.CHAT, Kind.COMPLETIONS])
def test_a_choice_that_says_why_it_stopped_may_hold_nothing(kind: Kind) -> None:
    """All was spent on thinking: sent again it would be paid again, with the same end."""
    choice = {"index": 0, "finish_reason": "length"}
    body = json.dumps({"choices": [choice], "usage": PAID}).encode()

    assert verdict_of_reply(kind, 200, body).good
    assert not verdict_of_reply(kind, 200, b'{"choices": [{"index": 0}]}').good


def test_sound_may_begin_as_an_object_does() -> None:
    assert verdict_of_reply(Kind.SPEECH, 200, b"{\x01\0\0\x7f").good
    assert not verdict_of_reply(Kind.SPEECH, 200, b'{"text": "half').good
    assert not verdict_of_reply(Kind.CHAT, 200, b"{\x01\0\0\x7f").good


@pytest.mark.parametrize("stated", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
def test_a_media_types_name_knows_no_case(stated: str) -> None:
    assert is_event_stream(stated)


@pytest.mark.parametrize(
    ("kind", "streams", "opening", "found"),
    [
        (Kind.CHAT, True, b"data: ", True),
        (Kind.CHAT, True, b" \n", None),
        (Kind.CHAT, True, b'\n{"error": 1}', False),
        (Kind.CHAT, True, b"<html>", False),
        (Kind.CHAT, False, b"data: ", False),
        (Kind.SPEECH, False, b"ID3", True),
        (Kind.SPEECH, False, b"[\x01", True),
        (Kind.SPEECH, False, b'{"error"', False),
    ],
)
def test_a_reply_goes_on_as_it_comes_where_its_first_byte_says_so(
    kind: Kind, streams: bool, opening: bytes, found: bool | None
) -> None:
    assert goes_on(kind, opening, streams=streams) is found


def test_a_rank_may_be_a_bare_list() -> None:
    assert verdict_of_reply(Kind.RERANK, 200, b'[{"index": 0, "score": 0.5}]').good
    for body in (b"[]", b"[1]", b'[{"index"'):
        assert not verdict_of_reply(Kind.RERANK, 200, body).good
    assert not verdict_of_reply(Kind.CHAT, 200, b'[{"index": 0}]').good


def test_a_text_of_nobody_speaking_is_a_line_end() -> None:
    assert verdict_of_reply(Kind.TRANSCRIPTIONS, 200, b"\n").good
    for kind, body in ((Kind.TRANSCRIPTIONS, b""), (Kind.CHAT, b"\n")):
        assert not verdict_of_reply(kind, 200, body).good


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"message": "slow down", "code": 429}', "slow down"),
        (b'{"detail": "Not authenticated"}', "Not authenticated"),
        (b'{"success": false, "errors": [{"code": 1, "message": "no route"}]}', "no route"),
        (b'{"base_resp": {"status_code": 1008, "status_msg": "no balance"}}', "no balance"),
        (b"upstream connect error\r\nfor sk-1234567890", "upstream connect error for (hidden)"),
        (b'{"id": "x"}', ""),
        (b'{"choices": [{"message": {"content": "half', ""),
    ],
)
def test_what_is_no_reply_is_told_in_its_own_words(body: bytes, said: str) -> None:
    verdict = verdict_of_reply(Kind.CHAT, 200, body)

    assert verdict.said == said
    assert verdict.told.endswith(f"It says: {said}" if said else ".")
