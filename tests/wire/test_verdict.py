"""Whether an answer with a good status holds what was asked for."""

import json

import pytest

from penstock.wire.endpoint import Kind
from penstock.wire.opening import Opening
from penstock.wire.refusal import RELAY
from penstock.wire.verdict import is_event_stream, verdict_of_reply

PAID = {"prompt_tokens": 5, "completion_tokens": 0}


@pytest.mark.parametrize("kind", [Kind.CHAT, Kind.COMPLETIONS])
def test_a_choice_that_says_why_it_stopped_may_hold_nothing(kind: Kind) -> None:
    """All was spent on thinking: sent again it would be paid again, with the same end."""
    choice = {"index": 0, "finish_reason": "length"}
    body = json.dumps({"choices": [choice], "usage": PAID}).encode()

    assert verdict_of_reply(kind, 200, body).good
    assert not verdict_of_reply(kind, 200, b'{"choices": [{"index": 0}]}').good


@pytest.mark.parametrize(
    ("message", "good"),
    [
        ({"role": "assistant", "content": None}, False),
        ({"role": "assistant", "content": None, "refusal": None, "tool_calls": []}, False),
        ({"role": "assistant", "content": ""}, True),
        ({"content": None, "tool_calls": [{"id": "1", "function": {"name": "look"}}]}, True),
        ({"content": None, "reasoning_content": "Hm."}, True),
        ({"content": None, "audio": {"id": "a1", "data": "aGk="}}, True),
    ],
)
def test_a_message_of_nothing_needs_a_reason_why_it_stopped(
    message: dict[str, object], *, good: bool
) -> None:
    choice = {"index": 0, "message": message, "finish_reason": None}
    said = verdict_of_reply(Kind.CHAT, 200, json.dumps({"choices": [choice]}).encode())

    assert said.good is good


@pytest.mark.parametrize("code", ["image_parse_error", "invalid_image_url", "bio_policy"])
def test_a_response_that_failed_for_what_it_was_given_is_its_callers(code: str) -> None:
    error = {"code": code, "message": "The image data you provided does not represent an image."}
    body = {"object": "response", "status": "failed", "output": [], "error": error}
    said = verdict_of_reply(Kind.RESPONSES, 200, json.dumps(body).encode())

    assert (said.meaning, said.status) == (RELAY, 400)


def test_no_vectors_for_no_texts_are_a_reply() -> None:
    empty = b'{"object": "list", "data": [], "usage": {"prompt_tokens": 0}}'

    assert verdict_of_reply(Kind.EMBEDDINGS, 200, empty).good
    assert not verdict_of_reply(Kind.EMBEDDINGS, 200, b'{"data": []}').good


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
    reply = Opening(kind, "", is_events=False, streams=streams)
    reply.take(opening)
    assert (None if reply.blank else reply.passes) is found


def test_a_page_is_one_behind_a_byte_order_mark() -> None:
    verdict = verdict_of_reply(Kind.CHAT, 200, b"\xef\xbb\xbf<!doctype html>")
    assert verdict.misdirected


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


TEXT = "well"
FOREIGN = {
    "Gemini": {"candidates": [{"content": {"parts": [{"text": TEXT}], "role": "model"}}]},
    "Ollama": {"model": "m", "message": {"role": "assistant", "content": TEXT}, "done": True},
    "Ollama, generate": {"model": "m", "response": TEXT, "done": True},
    "Cohere": {"id": "x", "message": {"content": [{"type": "text", "text": TEXT}]}},
    "Bedrock": {"output": {"message": {"content": [{"text": TEXT}]}}, "stopReason": "end_turn"},
    "Workers AI": {"result": {"response": TEXT}, "success": True, "errors": [], "messages": []},
    "ERNIE": {"id": "as-x", "object": "chat.completion", "result": TEXT},
    "TGI": {"generated_text": TEXT},
    "Anthropic": {"type": "message", "content": [{"type": "text", "text": TEXT}]},
    "an envelope": {"code": 0, "message": "success", "data": {"choices": [{"text": TEXT}]}},
    "a chunk": {"choices": [{"index": 0, "delta": {"content": TEXT}}]},
}
COMPLAINTS = {
    "a code": {"code": 500, "msg": "boom", "data": {"text": TEXT}},
    "a detail": {"detail": "boom", "output": TEXT},
    "no success": {"success": False, "result": TEXT},
    "a status": {"status": "failed", "output": [TEXT]},
    "a fault": {"fault": {"faultstring": "quota", "detail": {"errorcode": "x"}}},
    "Tencent": {"Response": {"Error": {"Code": "AuthFailure"}, "RequestId": "r"}, "text": TEXT},
    "ERNIE": {"error_code": 18, "error_msg": "qps", "result": TEXT},
    "an exception": {"exception": "java.lang.Error", "text": TEXT},
    "only what it is": {"id": "x", "object": "chat.completion", "created": 1, "model": "m"},
    "a text for a list": {"choices": TEXT},
    "nothing": {"result": None, "output": [], "text": " ", "message": {"role": "assistant"}},
}


@pytest.mark.parametrize("of", FOREIGN)
def test_another_apis_reply_that_holds_a_text_is_not_asked_for_again(of: str) -> None:
    assert verdict_of_reply(Kind.CHAT, 200, json.dumps(FOREIGN[of]).encode()).good


@pytest.mark.parametrize("of", COMPLAINTS)
def test_another_apis_reply_that_complains_or_holds_nothing_is_none(of: str) -> None:
    assert not verdict_of_reply(Kind.CHAT, 200, json.dumps(COMPLAINTS[of]).encode()).good


@pytest.mark.parametrize(
    "document",
    [
        [[1.0, 2.0]],
        {"embeddings": {"float": [[1.0, 2.0]]}},
        {"embedding": {"values": [1.0, 2.0]}},
    ],
)
def test_a_vector_is_a_vector_in_every_shape(document: object) -> None:
    assert verdict_of_reply(Kind.EMBEDDINGS, 200, json.dumps(document).encode()).good
    empty = json.dumps(document).replace("1.0, 2.0", "").encode()
    assert verdict_of_reply(Kind.EMBEDDINGS, 200, empty).good is isinstance(document, list)


EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
USED = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'


@pytest.mark.parametrize(
    "body",
    [
        EVENT + b"data: " + USED + b"\n\ndata: [DONE]\n\n",
        EVENT[6:-1] + USED + b"\n",
        b"[" + EVENT[6:-2] + b",\r\n" + USED + b"]",
        b"\x1e" + EVENT[6:-1] + b"\x1e" + USED + b"\n",
    ],
    ids=["events", "lines", "a list", "RFC 7464"],
)
def test_a_stream_that_nobody_asked_for_is_paid_for_all_the_same(body: bytes) -> None:
    verdict = verdict_of_reply(Kind.CHAT, 200, body)

    assert verdict.good
    assert (verdict.usage.prompt_tokens, verdict.usage.output_tokens) == (3, 2)
    assert not verdict_of_reply(Kind.CHAT, 200, body[:40]).good


@pytest.mark.parametrize(
    "body", [b'data: {"error":{"code":429}}\n\n', b'[{"error":{"code":429}}]\n']
)
def test_an_error_in_a_stream_that_nobody_asked_for_is_one(body: bytes) -> None:
    assert verdict_of_reply(Kind.CHAT, 200, body).status == 429


@pytest.mark.parametrize("levels", [900, 3000, 100_000])
def test_what_is_nested_deeper_than_parsers_go_is_read_above_that(levels: int) -> None:
    body = b'{"x":%b,"choices":[{"message":{"content":"hi"}}],"usage":{"completion_tokens":7}}'
    deep = b'{"a":[' * levels + b'"]}{"' + b"]}" * levels

    assert verdict_of_reply(Kind.CHAT, 200, body % deep).usage.output_tokens == 7
    assert not verdict_of_reply(Kind.CHAT, 200, (body % deep)[:-1]).good
    assert not verdict_of_reply(Kind.CHAT, 200, (body % deep)[:levels]).good


@pytest.mark.parametrize("code", [0, "0", 200, "success"])
def test_an_error_that_says_all_is_well_is_none(code: object) -> None:
    reply = {"choices": [{"message": {"content": "hi"}}], "error": {"code": code, "message": "ok"}}
    assert verdict_of_reply(Kind.CHAT, 200, json.dumps(reply).encode()).good


def test_a_choice_that_ends_with_an_error_and_no_text_is_one() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "error"}
    assert verdict_of_reply(Kind.CHAT, 200, json.dumps({"choices": [choice]}).encode()).has_error
    choice["message"] = {"content": "half"}  # it is paid for, and the caller's to judge
    assert verdict_of_reply(Kind.CHAT, 200, json.dumps({"choices": [choice]}).encode()).good
