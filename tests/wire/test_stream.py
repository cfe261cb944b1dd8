"""A relayed stream is read along: first token, usage, end and error, however it is cut."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire import jsonio
from penstock.wire.endpoint import Kind
from penstock.wire.sse import SseSplitter
from penstock.wire.stream import StreamReader
from penstock.wire.usage import Usage, usage_of_object
from penstock.wire.verdict import verdict_of_object


def sse(*events: object, end: str = "\n") -> bytes:
    parts = [e if isinstance(e, str) else json.dumps(e) for e in events]
    return "".join(f"data: {part}{end}{end}" for part in parts).encode()


def chunk(text: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


CHAT_USAGE = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 42}}
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
CHAT = sse(ROLE, chunk("Grüß"), chunk(" Gott"), CHAT_USAGE, "[DONE]")
MESSAGES = sse(
    {"type": "message_start", "message": {"usage": {
        "input_tokens": 5, "cache_read_input_tokens": 20, "output_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 17}},
    {"type": "message_stop"},
)  # fmt: skip
RESPONSES = sse(
    {"type": "response.created", "response": {"usage": None}},
    {"type": "response.output_text.delta", "delta": "Hello"},
    {"type": "response.completed",
     "response": {"usage": {"input_tokens": 3, "output_tokens": 9}}},
)  # fmt: skip


def cuts(data: bytes) -> st.SearchStrategy[list[bytes]]:
    def split(points: list[int]) -> list[bytes]:
        edges = [0, *sorted(points), len(data)]
        return [data[a:b] for a, b in itertools.pairwise(edges)]

    return st.lists(st.integers(0, len(data)), max_size=12).map(split)


@pytest.mark.parametrize(
    ("kind", "data", "usage"),
    [
        (Kind.CHAT, CHAT, Usage(42, 11)),
        (Kind.MESSAGES, MESSAGES, Usage(17, 25, cached_tokens=20, counted_input_tokens=5)),
        (Kind.RESPONSES, RESPONSES, Usage(9, 3)),
    ],
)
def test_a_whole_stream_reports_its_usage(kind: Kind, data: bytes, usage: Usage) -> None:
    reader = StreamReader(kind)
    reader.feed(data)
    assert (reader.started, reader.finished, reader.error) == (True, True, None)
    assert reader.usage() == usage


@given(st.data())
def test_where_the_chunks_are_cut_makes_no_difference(data: st.DataObject) -> None:
    kind, whole, usage = data.draw(
        st.sampled_from(
            [
                (Kind.CHAT, CHAT, Usage(42, 11)),
                (Kind.CHAT, CHAT.replace(b"\n", b"\r\n"), Usage(42, 11)),
                (Kind.CHAT, CHAT.replace(b"\n", b"\r"), Usage(42, 11)),
                (Kind.MESSAGES, MESSAGES, Usage(17, 25, cached_tokens=20, counted_input_tokens=5)),
            ]
        )
    )
    reader = StreamReader(kind)
    for piece in data.draw(cuts(whole)):
        reader.feed(piece)
    assert reader.finished
    assert reader.usage() == usage


def test_the_first_token_is_text_not_the_opening_role() -> None:
    reader = StreamReader(Kind.CHAT)
    reader.feed(sse(ROLE))
    assert not reader.started
    reader.feed(sse(chunk("H")))
    assert reader.started


def test_a_tool_call_counts_as_a_token() -> None:
    reader = StreamReader(Kind.CHAT)
    call = {"function": {"name": "look_up", "arguments": ""}}
    reader.feed(sse({"choices": [{"delta": {"tool_calls": [call]}}]}))
    assert reader.started


def delta(**fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None, **fields}}]}


def block(**fields: object) -> dict[str, object]:
    return {"type": "content_block_start", "index": 0, "content_block": fields}


def of_response(kind: str, **fields: object) -> dict[str, object]:
    return {"type": f"response.{kind}", **fields}


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (Kind.CHAT, delta(function_call={"name": "look", "arguments": "{"})),
        (Kind.CHAT, delta(content=[{"type": "text", "text": "a"}])),
        (Kind.CHAT, delta(content=[{"type": "thinking", "thinking": [{"text": "a"}]}])),
        (Kind.CHAT, delta(images=[{"image_url": {"url": "data:image/png;base64,AAAA"}}])),
        (Kind.CHAT, delta(audio={"id": "a", "data": "AAAA"})),
        (Kind.CHAT, delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "AA"}])),
        (Kind.CHAT, delta(tool_calls=[{"type": "custom", "custom": {"input": "a"}}])),
        (Kind.CHAT, {"choices": [{"message": {"role": "assistant", "content": "a"}}]}),
        (Kind.CHAT, {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}),
        (Kind.MESSAGES, block(type="redacted_thinking", data="AAAA")),
        (Kind.MESSAGES, block(type="web_search_tool_result", content=[{"url": "http://a"}])),
        (Kind.MESSAGES, {"type": "content_block_delta", "delta": {"signature": "AAAA"}}),
        (Kind.MESSAGES, delta(content="a")),
        (Kind.RESPONSES, of_response("output_text.done", text="a")),
        (Kind.RESPONSES, of_response("web_search_call.searching", item_id="w")),
        (Kind.RESPONSES, of_response("image_generation_call.partial_image", item_id="i")),
        (Kind.RESPONSES, of_response("output_item.done", item={"type": "function_call"})),
        (Kind.RESPONSES, {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}),
    ],
)
def test_content_in_any_field_is_content(kind: Kind, event: dict[str, object]) -> None:
    reader = StreamReader(kind)
    reader.feed(sse(event))
    assert reader.started


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (Kind.CHAT, delta(refusal=None, reasoning_details=[], audio={"id": "a"})),
        (Kind.CHAT, {"choices": [], "prompt_filter_results": [{"severity": "safe"}]}),
        (Kind.CHAT, {"type": "ping"}),
        (Kind.MESSAGES, block(type="text", text="")),
        (Kind.MESSAGES, block(type="tool_use", id="t", name="look", input={})),
        (Kind.MESSAGES, {"type": "ping"}),
        (Kind.RESPONSES, of_response("created", response={"instructions": "Be brief."})),
        (Kind.RESPONSES, of_response("output_item.added", item={"type": "reasoning"})),
        (Kind.RESPONSES, {"type": "keepalive"}),
    ],
)
def test_what_announces_content_is_none(kind: Kind, event: dict[str, object]) -> None:
    reader = StreamReader(kind)
    reader.feed(sse(event))
    assert not reader.started


def test_a_cut_stream_is_estimated_from_its_text_and_says_so() -> None:
    reader = StreamReader(Kind.CHAT)
    reader.feed(sse(ROLE, chunk("x" * 400)))
    assert not reader.finished
    assert reader.usage() == Usage(100, None, "estimated")


def test_a_cut_anthropic_stream_does_not_take_the_first_instalment_for_the_count() -> None:
    reader = StreamReader(Kind.MESSAGES)
    reader.feed(MESSAGES[: MESSAGES.index(b'{"type": "message_delta"')])
    assert reader.usage() == Usage(1, 25, "estimated", 20, 5)


@pytest.mark.parametrize(("first", "last"), [(5, 0), (0, 5), (5, 5)])
def test_a_count_of_input_is_no_zero_where_another_event_states_it(first: int, last: int) -> None:
    reader = StreamReader(Kind.MESSAGES)
    reader.feed(sse(
        {"type": "message_start", "message": {"usage": {"input_tokens": first}}},
        {"type": "message_delta", "usage": {"input_tokens": last, "output_tokens": 17}},
    ))  # fmt: skip
    assert (reader.usage().prompt_tokens, reader.usage().output_tokens) == (5, 17)


def test_a_stream_without_a_token_is_unknown_never_zero() -> None:
    reader = StreamReader(Kind.CHAT)
    reader.feed(sse(ROLE))
    assert reader.usage() == Usage(None, None, "unknown")


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (Kind.CHAT, {"error": {"message": "no"}}),
        (Kind.MESSAGES, {"type": "error", "error": {"type": "overloaded_error"}}),
        (Kind.RESPONSES, {"type": "response.failed", "response": {}}),
        (Kind.RESPONSES, {"type": "error", "code": "x"}),
        (Kind.CHAT, "error"),
        (Kind.MESSAGES, "error"),
    ],
)
def test_an_error_inside_a_stream_is_seen(kind: Kind, event: dict[str, object] | str) -> None:
    named = b"event: error\n" + sse({"message": "no"}) if event == "error" else sse(event)
    reader = StreamReader(kind)
    reader.feed(named)
    assert reader.error is not None


@pytest.mark.parametrize(
    ("events", "failed"),
    [
        ([{"detail": "Internal error"}], True),
        ([{"message": "in line"}, chunk("H")], False),
    ],
)
def test_a_complaint_in_another_apis_words_is_an_error_if_nothing_follows(
    events: list[dict[str, object]], *, failed: bool
) -> None:
    reader = StreamReader(Kind.CHAT)
    reader.feed(b"".join(map(sse, events)))
    assert reader.error is None  # not yet: some say how far they are
    reader.feed(b"data: [DONE]\n\n")
    assert (reader.error is not None) is failed


@pytest.mark.parametrize("error", [None, "", {}, {"message": "", "type": "", "code": None}])
def test_an_error_without_a_word_in_it_is_none(error: object) -> None:
    reader = StreamReader(Kind.CHAT)
    reader.feed(sse({**chunk("H"), "error": error}))
    assert reader.error is None
    assert verdict_of_object(Kind.CHAT, 200, {"choices": [{"message": {}}], "error": error}).good


def stop(index: int) -> dict[str, object]:
    return {"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}


def other(text: str) -> dict[str, object]:
    return {"choices": [{"index": 1, "delta": {"content": text}, "finish_reason": None}]}


@pytest.mark.parametrize(
    ("kind", "data", "whole"),
    [
        (Kind.CHAT, sse(chunk("H")), False),
        (Kind.CHAT, sse(chunk("H"), "[DONE]"), True),
        (Kind.CHAT, b"\xef\xbb\xbf" + sse(chunk("H"), "[DONE]"), True),
        (Kind.CHAT, sse("[DONE]"), False),
        (Kind.CHAT, sse(chunk("H"), stop(0)), True),
        (Kind.CHAT, sse(chunk("H"), other("I"), stop(0)), False),
        (Kind.CHAT, sse(chunk("H"), other("I"), stop(1), stop(0)), True),
        (Kind.MESSAGES, MESSAGES[: MESSAGES.index(b'{"type": "message_delta"')], False),
        (Kind.RESPONSES, RESPONSES[: RESPONSES.index(b'{"type": "response.completed"')], False),
        (Kind.RESPONSES, sse({"type": "response.incomplete", "response": {}}), True),
        (Kind.RESPONSES, sse({"type": "response.cancelled", "response": {}}), True),
        (Kind.RESPONSES, b"event: response.completed\n" + sse({"response": {}}), True),
        (Kind.MESSAGES, b"event:message_stop\r\ndata: {}\r\n\r\n", True),
        (Kind.MESSAGES, b"event: message_stop\n\n" + sse({}), False),
        (Kind.CHAT, sse({"candidates": [{"content": {"parts": [{"text": "a"}]}}]}), True),
        (Kind.CHAT, b"data: " + b"x" * 1_100_000, True),  # an event that nobody has read
    ],
)
def test_whether_a_stream_may_end_here(kind: Kind, data: bytes, whole: bool) -> None:
    reader = StreamReader(kind)
    reader.feed(data)
    assert reader.whole is whole


@given(st.lists(st.binary(max_size=60), max_size=8), st.sampled_from(Kind))
def test_broken_streams_are_passed_over(chunks: list[bytes], kind: Kind) -> None:
    reader = StreamReader(kind)
    for piece in chunks:
        reader.feed(piece)
    assert reader.usage().output_tokens is None or reader.started


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "usage", "type", "message", "tool_calls",
                                 "function", "content", "response", "output_tokens"]),
                inner,
            )
        ),
    ),
    st.sampled_from(Kind),
)  # fmt: skip
def test_odd_events_are_passed_over(event: object, kind: Kind) -> None:
    reader = StreamReader(kind)
    reader.feed(sse(event))
    usage = reader.usage()
    assert (usage.output_tokens is None) == (usage.source == "unknown")


def test_an_event_of_several_data_lines_is_one_and_comments_are_none() -> None:
    events = list(SseSplitter().feed(b": hi\nevent: x\ndata: a\ndata:b\nid: 3\n\n: bye\n\n"))
    assert events == [b"a\nb"]


@given(step=st.integers(50_000, 3_000_000))
def test_the_usage_of_an_event_too_large_to_keep_is_read(step: int) -> None:
    reply = {"output": ["y" * 2_000_000], "usage": {"input_tokens": 9, "output_tokens": 77}}
    data = sse({"type": "response.completed", "response": reply}) + b": bye\n\n"
    reader = StreamReader(Kind.RESPONSES)

    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])

    assert reader.usage() == Usage(77, 9)
    assert reader.whole


def test_a_request_repeated_in_a_large_event_is_no_content() -> None:
    reader = StreamReader(Kind.RESPONSES)
    reader.feed(b'data: {"type":"response.created","response":{"instructions":"')
    for _ in range(3):
        reader.feed(b"x" * 500_000)
    reader.feed(b'","usage":null}}\n\n')

    assert not reader.started


def test_a_monstrous_event_is_forgotten_not_kept() -> None:
    splitter = SseSplitter()
    for _ in range(40):
        assert list(splitter.feed(b"x" * 50_000)) == []
    assert list(splitter.feed(b"\n\ndata: y\n\n")) == [b"y"]


@pytest.mark.parametrize(
    ("kind", "body", "usage"),
    [
        (Kind.CHAT, b'{"usage":{"prompt_tokens":3,"completion_tokens":0}}', Usage(0, 3)),
        (Kind.EMBEDDINGS, b'{"usage":{"prompt_tokens":3,"total_tokens":3}}', Usage(0, 3)),
        (Kind.CHAT, b'{"usage":{"prompt_tokens":3}}', Usage(None, 3)),
        (Kind.CHAT, b'{"usage":{"prompt_tokens":-3,"completion_tokens":true}}',
         Usage(source="unknown", ignored=2)),
        (Kind.CHAT, b'{"usage":null}', Usage(source="unknown")),
        (Kind.CHAT, (b'{"usage":{"prompt_tokens":90,"completion_tokens":4,'
         b'"prompt_tokens_details":{"cached_tokens":64}}}'), Usage(4, 90, cached_tokens=64)),
        (Kind.RESPONSES, (b'{"usage":{"input_tokens":90,"output_tokens":4,'
         b'"input_tokens_details":{"cached_tokens":64}}}'), Usage(4, 90, cached_tokens=64)),
        (Kind.CHAT, (b'{"usage":{"prompt_tokens":90,"completion_tokens":4,'
         b'"prompt_cache_hit_tokens":64}}'), Usage(4, 90, cached_tokens=64)),
        (Kind.CHAT, (b'{"usage":{"prompt_tokens":90,"completion_tokens":4,'
         b'"prompt_tokens_details":{"cached_tokens":64}},"x_groq":{"id":"req_1"}}'),
         Usage(4, 90, cached_tokens=64, counted_input_tokens=26)),
        (Kind.MESSAGES, (b'{"usage":{"input_tokens":5,"output_tokens":4,'
         b'"cache_creation_input_tokens":10,"cache_read_input_tokens":75}}'),
         Usage(4, 90, cached_tokens=75, counted_input_tokens=15)),
        (Kind.MESSAGES, b'{"usage":{"input_tokens":5,"output_tokens":4}}', Usage(4, 5)),
        (Kind.CHAT, b"<html>", Usage(source="unknown")),
        (Kind.CHAT, b"[1]", Usage(source="unknown")),
    ],
)  # fmt: skip
def test_usage_of_a_whole_reply(kind: Kind, body: bytes, usage: Usage) -> None:
    assert usage_of_object(kind, jsonio.loads_object(body) or {}) == usage
