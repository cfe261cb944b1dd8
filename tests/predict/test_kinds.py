"""What kind of call a body is, known without reading its texts."""

from typing import Any

import pytest

from penstock.predict import CallFeatures, kind_of

LONG = [{"role": "user", "content": "hi"}] * 300
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
BODIES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "hi"}]},
    {"messages": [{"role": "system", "content": "Be brief."}, *LONG[:2]], "tools": [TOOL]},
    {"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}]}, *LONG]},
    {"messages": [*LONG, {"role": "system", "content": "Late."}], "reasoning_effort": "high"},
    {"system": [{"type": "text", "text": "You are 7."}], "messages": LONG[:1]},
    {"instructions": "Translate.", "input": "hi", "reasoning": {"effort": "low"}},
    {"input": [{"role": "system", "content": "One."}, {"role": "system", "content": "Two."}]},
    {"prompt": ["a", "b"], "n": 2},
    {"messages": "odd", "system": 7, "tools": [None, {"name": "x"}]},
    {},
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("route", [None, "mine"])
def test_a_kind_is_that_of_the_call_when_it_is_read(
    body: dict[str, Any], route: str | None
) -> None:
    body = {"model": "m", **body}
    call = CallFeatures.from_body(body, endpoint="chat", route=route)

    assert kind_of(body, endpoint="chat", route=route) == (call.model, call.route)
