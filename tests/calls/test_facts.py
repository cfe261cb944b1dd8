"""Facts of a call come from its body, and a bad body is nobody's crash."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.calls.endpoint import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    MESSAGES,
    RESPONSES,
    Endpoint,
    endpoint_like,
    endpoint_of,
    model_in,
)
from penstock.calls.facts import IMAGE_TOKENS, MOST_CHOICES, MOST_PROMPTS, MOST_TOKENS, facts_of


@pytest.mark.parametrize(
    ("endpoint", "body", "cap", "replies"),
    [
        (CHAT, {"max_tokens": 9}, 9, 1),
        (CHAT, {"max_tokens": 9, "max_completion_tokens": 7}, 7, 1),
        (CHAT, {"max_tokens": 9, "max_completion_tokens": None}, 9, 1),
        (CHAT, {"max_tokens": 9, "n": 3}, 27, 3),
        (CHAT, {"max_tokens": 9.0}, 9, 1),
        (CHAT, {"n": 3}, None, 3),
        (COMPLETIONS, {}, 16, 1),
        (COMPLETIONS, {"max_tokens": 5, "best_of": 4}, 20, 4),
        (COMPLETIONS, {"max_tokens": 5, "prompt": ["a", "b"]}, 10, 2),
        (COMPLETIONS, {"n": 2, "prompt": [[1], [2, 3]]}, 64, 4),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 16, 1),
        (RESPONSES, {"max_output_tokens": 50, "max_tokens": 3}, 50, 1),
        (MESSAGES, {"max_tokens": 1024}, 1024, 1),
        (MESSAGES, {"max_tokens": 0}, 0, 1),
        (EMBEDDINGS, {"input": ["a", "b"]}, None, 1),
    ],
)
def test_what_a_body_caps_and_how_many_replies_it_asks_for(
    endpoint: Endpoint, body: dict[str, Any], cap: int | None, replies: int
) -> None:
    facts = facts_of(endpoint, {"model": "m", **body})
    assert (facts.max_tokens, facts.replies, facts.problems) == (cap, replies, ())


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": "100"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": -3}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": float("nan")}, "max_tokens"),
        ({"max_tokens": float("inf")}, "max_tokens"),
        ({"max_tokens": [9]}, "max_tokens"),
        ({"max_tokens": 10**160}, "max_tokens"),
        ({"max_tokens": MOST_TOKENS + 1}, "max_tokens"),
        ({"n": "two"}, "n"),
        ({"n": {}}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": "m" * 300}, "model"),
        ({"model": "\ud83d"}, "model"),
    ],
)
def test_what_is_not_understood_counts_as_not_said_and_is_named(
    body: dict[str, Any], field: str
) -> None:
    facts = facts_of(CHAT, {"model": "m", **body})
    assert (facts.max_tokens, facts.replies, facts.streams) == (None, 1, False)
    (problem,) = facts.problems
    assert problem.startswith(field)


@pytest.mark.parametrize("count", [MOST_CHOICES, MOST_CHOICES + 1, 10**6, 10**160, 1e160])
def test_how_many_replies_are_asked_for_is_bounded(count: float) -> None:
    facts = facts_of(COMPLETIONS, {"model": "m", "n": count, "prompt": ["a"] * 5000})
    assert facts.replies == MOST_CHOICES * MOST_PROMPTS


def chat(*content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": c} for c in content], **more}


WORDS = "water " * 1000
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}


@pytest.mark.parametrize(
    ("endpoint", "body", "tokens"),
    [
        (CHAT, chat(WORDS), 1500),
        (CHAT, chat([{"type": "text", "text": WORDS}]), 1500),
        (CHAT, chat("你好" * 500), 750),
        (CHAT, chat("\ud83d" * 4000), 1000),
        (CHAT, chat([IMAGE, {"type": "text", "text": WORDS}]), IMAGE_TOKENS + 1500),
        (CHAT, chat("hi", tools=[{"type": "function", "function": {"description": WORDS}}]), 1500),
        (CHAT, chat("hi", metadata={"note": WORDS}), 10),
        (MESSAGES, chat("hi", system=[{"type": "text", "text": WORDS}]), 1500),
        (MESSAGES, chat([{"type": "tool_result", "content": [{"type": "text", "text": WORDS}]}]),
         1500),
        (MESSAGES, chat([{"type": "document", "source": {"type": "text", "data": WORDS}}]), 1500),
        (MESSAGES, chat([{"type": "document", "source": {"type": "base64", "data": "A" * 10**6}}]),
         IMAGE_TOKENS),
        (RESPONSES, {"input": WORDS, "instructions": WORDS}, 3000),
        (RESPONSES, {"input": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]},
         IMAGE_TOKENS),
        (COMPLETIONS, {"prompt": [WORDS, WORDS]}, 3000),
        (COMPLETIONS, {"prompt": list(range(1000))}, 1000),
        (EMBEDDINGS, {"input": [[1] * 500, [2] * 500]}, 1000),
        (EMBEDDINGS, {"input": WORDS}, 1500),
        (CHAT, {}, 0),
    ],
)  # fmt: skip
def test_roughly_how_many_tokens_go_in(
    endpoint: Endpoint, body: dict[str, Any], tokens: int
) -> None:
    assert facts_of(endpoint, body).prompt_tokens == pytest.approx(tokens, rel=0.02, abs=20)


def test_depth_is_the_callers_choice() -> None:
    body: dict[str, Any] = {"messages": []}
    inner = body["messages"]
    for _ in range(10 * sys.getrecursionlimit()):
        inner.append([])
        inner = inner[0]
    assert facts_of(CHAT, body).prompt_tokens >= 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = ["model", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of",
          "stream", "stream_options", "messages", "input", "prompt", "system", "tools"]  # fmt: skip


@given(st.sampled_from(ENDPOINTS), st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_no_body_is_too_odd(endpoint: Endpoint, body: dict[str, object]) -> None:
    facts = facts_of(endpoint, body)
    assert facts.max_tokens is None or 0 <= facts.max_tokens <= MOST_TOKENS * facts.replies
    assert 1 <= facts.replies <= MOST_CHOICES * MOST_PROMPTS
    assert facts.prompt_tokens >= 1
    facts.model.encode()


def test_a_server_matches_paths_exactly_and_a_client_by_their_end() -> None:
    azure = "/openai/deployments/my-model/chat/completions"

    assert endpoint_of(azure) is None
    assert endpoint_like(azure) is CHAT
    assert endpoint_like("/v1/completions") is COMPLETIONS
    assert endpoint_like("/anthropic/v1/messages/") is MESSAGES is endpoint_of("/v1/messages")
    assert endpoint_like("/v1/threads/thread_1/messages") is None
    vertex = "/v1/projects/p/locations/r/publishers/anthropic/models"
    assert endpoint_like(f"{vertex}/claude@1:streamRawPredict") is MESSAGES
    assert endpoint_like(f"{vertex}/count-tokens:rawPredict") is None
    assert model_in(f"{vertex}/claude@1:rawPredict") == "claude@1"
    assert (model_in(azure), model_in("/v1/messages")) == ("my-model", "")
    counting = endpoint_like("/v1/messages/count_tokens")
    assert counting is not None
    assert not counting.scheduled
