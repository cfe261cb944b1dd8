"""Reading request bodies of all four shapes, without ever failing on one."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.predict import CallFeatures
from penstock.predict.features.call import DENSE_NAMES, asked_tokens
from penstock.predict.features.text import read_text

QUESTION = "How deep is the lake?"
SYSTEM = "You are a guide."


def feature(call: CallFeatures, name: str) -> float:
    return float(call.dense[DENSE_NAMES.index(name)])


def test_the_four_shapes_of_one_question_read_alike() -> None:
    chat = {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        ]
    }
    responses = {"instructions": SYSTEM, "input": QUESTION}
    messages = {
        "system": [{"type": "text", "text": SYSTEM}],
        "messages": [{"role": "user", "content": QUESTION}],
    }
    completions = {"prompt": QUESTION}

    calls = [
        CallFeatures.from_body(body, endpoint="any", route="lake")
        for body in (chat, responses, messages, completions)
    ]

    for call in calls:
        assert np.array_equal(call.grams, calls[0].grams)
        assert feature(call, "user_tokens") == feature(calls[0], "user_tokens")
    assert feature(calls[0], "system_chars") == feature(calls[1], "system_chars") > 0
    assert feature(calls[0], "system_chars") == feature(calls[2], "system_chars")


def test_the_cap_is_found_under_all_its_names() -> None:
    for key in ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample"):
        call = CallFeatures.from_body({"prompt": "x", key: 40, "n": 3}, endpoint="chat")
        assert call.cap_tokens == 120.0
    assert CallFeatures.from_body({"prompt": "x"}, endpoint="chat").cap_tokens == math.inf


def test_a_route_is_derived_from_system_prompt_and_tools_but_not_from_dates_in_it() -> None:
    def route(system: str, **more: object) -> str:
        body = {"messages": [{"role": "system", "content": system}], **more}
        return CallFeatures.from_body(body, endpoint="chat").route

    monday = route("You sort mail. Today is 2026-11-23.")

    assert monday == route("You sort mail. Today is 2026-11-24.")
    assert monday != route("You write poems.")
    assert monday != route("You sort mail. Today is 2026-11-23.", tools=[{"name": "open"}])
    assert monday.startswith("~chat-")
    assert "mail" not in monday


def test_reasoning_effort_makes_another_model_of_it() -> None:
    low = CallFeatures.from_body({"model": "r1", "reasoning_effort": "low"}, endpoint="chat")
    high = CallFeatures.from_body({"model": "r1", "reasoning": {"effort": "high"}}, endpoint="chat")

    assert (low.model, high.model) == ("r1#low", "r1#high")


def test_tools_images_and_the_last_reply_are_seen() -> None:
    body = {
        "tools": [{"type": "function", "function": {"name": "search"}}],
        "tool_choice": "required",
        "messages": [
            {"role": "user", "content": "Look"},
            {"role": "assistant", "content": "a" * 400},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        ],
    }
    call = CallFeatures.from_body(body, endpoint="chat")

    plain = CallFeatures.from_body({"messages": []}, endpoint="chat")
    for name in ("tools", "tool_forced", "images", "reply_chars", "has_reply"):
        assert feature(call, name) > feature(plain, name), name


def test_a_demand_for_words_or_items_is_read_as_tokens() -> None:
    assert asked_tokens("Tell me in 200 words why") == 270
    assert asked_tokens("Give 3 short paragraphs and 10 bullet points") == 300
    assert asked_tokens("Why 42?") == 0


def test_texts_that_share_words_share_grams_and_numbers_count_by_length() -> None:
    one, two = read_text("Add 123 and 456 please"), read_text("add 789 and 012 please")

    assert np.array_equal(one.grams, two.grams)
    assert not np.array_equal(one.grams, read_text("Add 1234 and 456 please").grams)


def test_a_long_prompt_is_read_by_450_bytes_of_its_head_and_as_many_of_its_tail() -> None:
    filler = "the mill turns " * 60

    def grams(text: str) -> list[int]:
        found: list[int] = CallFeatures.from_prompt(text).grams.tolist()
        return found

    assert len(filler) == 900
    assert grams(filler[:450] + "sluice " + filler[450:-7]) != grams(filler)
    assert grams(filler[:450] + "sluice " + filler[450:]) == grams(filler)
    assert grams("sluice " + filler) != grams(filler) != grams(filler + "sluice")


def test_chinese_is_read_character_by_character() -> None:
    assert read_text("请写一首关于海的诗").words == 9


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "input", "tools", "function", "name", "n"]
            ),
            inner,
            max_size=4,
        ),
        max_leaves=20,
    ),
    st.sampled_from(
        [
            "messages", "input", "prompt", "system", "instructions", "tools", "tool_choice", "stop",
            "response_format", "n", "max_tokens", "reasoning", "thinking", "temperature", "text",
            "model", "output_config", "functions", "reasoning_effort",
        ]
    ),
)  # fmt: skip
def test_no_json_whatever_keeps_a_body_from_being_read(value: object, key: str) -> None:
    call = CallFeatures.from_body({key: value}, endpoint="chat")

    assert np.isfinite(call.dense).all()
    assert call.prompt_tokens >= 0
    assert call.cap_tokens >= 1
