"""Facts of a call come from its body and headers, and a bad body is nobody's crash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.calls.call import Call, Hints, call_of, hints_of
from penstock.core.model import TokenEstimate
from penstock.wire.endpoint import Kind, endpoint_like, endpoint_of


@pytest.mark.parametrize(
    ("kind", "body", "call"),
    [
        (Kind.CHAT, {"model": "m", "max_tokens": 9}, Call("m", 9, False, False)),
        (Kind.CHAT, {"max_tokens": 9, "max_completion_tokens": 7}, Call("", 7, False, False)),
        (Kind.CHAT, {"max_tokens": 9, "n": 3}, Call("", 27, False, False)),
        (Kind.CHAT, {"stream": True, "stream_options": {"include_usage": True}},
         Call("", None, True, True)),
        (Kind.COMPLETIONS, {"model": "m"}, Call("m", 16, False, False)),
        (Kind.COMPLETIONS, {"max_tokens": 5, "best_of": 4}, Call("", 20, False, False)),
        (Kind.COMPLETIONS, {"max_tokens": 5, "prompt": ["a", "b"]}, Call("", 10, False, False)),
        (Kind.COMPLETIONS, {"n": 2, "prompt": [[1], [2, 3]]}, Call("", 64, False, False)),
        (Kind.COMPLETIONS, {"prompt": [1, 2, 3]}, Call("", 16, False, False)),
        (Kind.RESPONSES, {"max_output_tokens": 50, "stream": True}, Call("", 50, True, True)),
        (Kind.MESSAGES, {"model": "c", "max_tokens": 1024}, Call("c", 1024, False, True)),
        (Kind.EMBEDDINGS, {"model": "e", "input": "x"}, Call("e", 1, False, True)),
    ],
)  # fmt: skip
def test_what_a_body_says(kind: Kind, body: dict[str, object], call: Call) -> None:
    assert call_of(kind, body) == call


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FIELDS = ["model", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of",
          "stream", "stream_options"]  # fmt: skip


@given(st.sampled_from(Kind), st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_no_body_is_too_odd(kind: Kind, body: dict[str, object]) -> None:
    call = call_of(kind, body)
    assert call.max_tokens is None or call.max_tokens >= 1
    assert isinstance(call.model, str)


def test_hints_come_from_headers() -> None:
    headers = {
        "x-penstock-class": "batch",
        "x-penstock-deadline-ms": "1500",
        "x-penstock-tenant": "reports",
    }
    assert hints_of(headers) == Hints("batch", 1.5, "reports")
    assert hints_of({}) == Hints()


@pytest.mark.parametrize(
    ("text", "p50", "p90"), [("40", 40, 40), ("40,90", 40, 90), ("9, 9.5", 9, 9.5)]
)
def test_a_call_states_its_length_by_header(text: str, p50: float, p90: float) -> None:
    hints = hints_of({"x-penstock-tokens": text})
    assert hints == Hints(tokens=TokenEstimate(p50, p90, "caller"))


@pytest.mark.parametrize("text", ["", "0", "90,40", "40,", "1,2,3", "nan", "many"])
def test_a_length_that_is_none_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(ValueError, match=f"x-penstock-tokens='{text}' is no length of a reply"):
        hints_of({"x-penstock-tokens": text})


@pytest.mark.parametrize("text", ["0", "-5", "soon", "inf", "nan", ""])
def test_a_deadline_that_is_none_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(ValueError, match=f"x-penstock-deadline-ms='{text}'"):
        hints_of({"x-penstock-deadline-ms": text})


def test_a_server_matches_paths_exactly_and_a_client_by_their_end() -> None:
    azure = "/openai/deployments/my-model/chat/completions"

    assert endpoint_of(azure) is None
    found = endpoint_like(azure)
    assert found is not None
    assert found.kind is Kind.CHAT
    legacy = endpoint_like("/v1/completions")
    assert legacy is not None
    assert legacy.kind is Kind.COMPLETIONS
    assert endpoint_like("/v1/messages/count_tokens") is None
    assert endpoint_of("/v1/messages") == endpoint_like("/anthropic/v1/messages/")
