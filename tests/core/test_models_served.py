"""An upstream gets the models that its settings name, and no others."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import Arrived, Dispatch, Reject
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.settings import Settings, UpstreamSettings
from penstock.policies.registry import build_scheduler


def is_served(patterns: tuple[str, ...], model: str) -> bool:
    scheduler = build_scheduler(
        Settings((TrafficClass("chat"),), (UpstreamSettings("east", models=patterns),))
    )
    request = Request(1, "chat", 0.0, TokenEstimate(10, 20), model=model)

    [action] = scheduler.handle(Arrived(request), now=0.0)

    assert isinstance(action, Dispatch) or (
        isinstance(action, Reject) and action.reason == "no_upstream"
    )
    return isinstance(action, Dispatch)


@pytest.mark.parametrize(
    ("patterns", "model"),
    [
        ((), "anything"),
        (("gpt-5",), "gpt-5"),
        (("*",), ""),
        (("openai/*",), "openai/gpt-5"),
        (("claude", "gpt-*-mini"), "gpt-5-mini"),
        (("*-[beta]?",), "o9-[beta]?"),
        (("a*b*c",), "a-b-b-c"),
    ],
)
def test_a_model_that_fits_is_sent(patterns: tuple[str, ...], model: str) -> None:
    assert is_served(patterns, model)


@pytest.mark.parametrize(
    ("patterns", "model"),
    [
        (("gpt-5",), "gpt-5-mini"),
        (("openai/*",), "anthropic/claude"),
        (("gpt-*-mini",), "gpt-mini"),
        (("aa*aa",), "aaa"),
        (("a*b*c",), "a-c-b"),
        (("gpt-?",), "gpt-5"),
    ],
)
def test_a_model_that_does_not_is_refused_by_name(patterns: tuple[str, ...], model: str) -> None:
    assert not is_served(patterns, model)


@given(pattern=st.text("ab*", min_size=1, max_size=6), model=st.text("ab", max_size=8))
def test_a_star_means_what_it_means_in_a_regular_expression(pattern: str, model: str) -> None:
    meaning = ".*".join(re.escape(part) for part in pattern.split("*"))

    assert is_served((pattern,), model) == bool(re.fullmatch(meaning, model))
