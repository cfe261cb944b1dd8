"""What the official `anthropic` SDK sees of the mock."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.sim.mock.world import QUICK

ASK: Any = [{"role": "user", "content": "count to ten"}]
TOOL: Any = {
    "name": "weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
}


def asked(tokens: int) -> dict[str, Any]:
    return {"extra_headers": {"x-mock-output-tokens": str(tokens)}}


@pytest.fixture
async def client(quick: MockServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=quick.url, api_key="any", max_retries=0) as found:
        yield found


async def test_a_message_whole(client: anthropic.AsyncAnthropic) -> None:
    reply = await client.messages.create(
        model="m", max_tokens=100, system="be brief", messages=ASK, **asked(20)
    )

    (block,) = reply.content
    assert block.type == "text"
    assert len(block.text.split()) == 20
    assert reply.stop_reason == "end_turn"
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (5, 20)


async def test_a_message_streamed(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(
        model="m", max_tokens=100, messages=ASK, **asked(20)
    ) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()

    assert len(text.split()) == 20
    assert final.usage.output_tokens == 20
    assert final.stop_reason == "end_turn"


async def test_max_tokens_of_0_reads_the_prompt_and_writes_nothing(
    client: anthropic.AsyncAnthropic,
) -> None:
    reply = await client.messages.create(model="m", max_tokens=0, messages=ASK)
    assert (reply.content, reply.stop_reason, reply.usage.output_tokens) == ([], "max_tokens", 0)


async def test_max_tokens_cuts(client: anthropic.AsyncAnthropic) -> None:
    reply = await client.messages.create(model="m", max_tokens=5, messages=ASK, **asked(20))

    assert (reply.stop_reason, reply.usage.output_tokens) == ("max_tokens", 5)


async def test_a_tool_is_used_whole_and_streamed(client: anthropic.AsyncAnthropic) -> None:
    whole = await client.messages.create(
        model="m", max_tokens=50, messages=ASK, tools=[TOOL], **asked(9)
    )
    async with client.messages.stream(
        model="m", max_tokens=50, messages=ASK, tools=[TOOL], **asked(9)
    ) as stream:
        streamed = await stream.get_final_message()

    for reply in (whole, streamed):
        block: Any
        (block,) = reply.content
        assert block.type == "tool_use"
        assert block.name == "weather"
        assert block.input.keys() == {"city", "days"}
        assert reply.stop_reason == "tool_use"


async def test_after_a_tools_result_comes_text(client: anthropic.AsyncAnthropic) -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}
    messages: Any = [*ASK, {"role": "user", "content": [result]}]

    reply = await client.messages.create(
        model="m", max_tokens=50, messages=messages, tools=[TOOL], **asked(3)
    )

    assert reply.content[0].type == "text"


async def test_models_are_listed_in_anthropics_shape(client: anthropic.AsyncAnthropic) -> None:
    assert [model.display_name async for model in client.models.list()] == ["mock-model"]


async def test_errors_have_anthropics_shape() -> None:
    windows = [{"kind": "status", "status": 529, "retry_after_s": 3}]
    provider = {"model": "faulty", "inner": QUICK, "windows": windows}
    async with (
        MockServer(MockSettings(provider)) as mock,
        anthropic.AsyncAnthropic(base_url=mock.url, api_key="x", max_retries=0) as client,
    ):
        with pytest.raises(anthropic.InternalServerError) as overloaded:
            await client.messages.create(model="m", max_tokens=5, messages=ASK)
        with pytest.raises(anthropic.BadRequestError) as bad:
            await client.post("/v1/messages", body={"model": "m"}, cast_to=object)

    body: Any = overloaded.value.body
    assert overloaded.value.status_code == 529
    assert body["error"]["type"] == "overloaded_error"
    assert body["request_id"].startswith("req_mock")
    assert overloaded.value.response.headers["retry-after"] == "3"
    worse: Any = bad.value.body
    assert worse["error"]["type"] == "invalid_request_error"


async def test_rate_limits_are_stated_anthropics_way() -> None:
    limits = {"model": "rate_limited", "rpm": 60, "output_tpm": 6000, "dialect": "anthropic"}
    async with (
        MockServer(MockSettings({**limits, "inner": QUICK})) as mock,
        anthropic.AsyncAnthropic(base_url=mock.url, api_key="x", max_retries=0) as client,
    ):
        raw = await client.messages.with_raw_response.create(
            model="m", max_tokens=5, messages=ASK, **asked(2)
        )

    assert raw.headers["anthropic-ratelimit-requests-limit"] == "60"
    assert raw.headers["anthropic-ratelimit-output-tokens-remaining"] == "5998"
    assert raw.headers["request-id"].startswith("req_mock")
