"""What the official `openai` SDK sees of the mock."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.sim.mock.world import QUICK

ASK: Any = [{"role": "user", "content": "count to ten"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
}


def asked(tokens: int) -> dict[str, Any]:
    return {"extra_headers": {"x-mock-output-tokens": str(tokens)}}


@pytest.fixture
async def client(quick: MockServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{quick.url}/v1", api_key="any", max_retries=0
    ) as found:
        yield found


async def test_a_chat_reply_is_as_long_as_the_header_says(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model="m", messages=ASK, **asked(20))

    text = reply.choices[0].message.content
    assert text is not None
    assert len(text.split()) == 20
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 20)


async def test_the_same_request_gets_the_same_reply_and_another_one_another(
    client: openai.AsyncOpenAI,
) -> None:
    async def text(content: str) -> str | None:
        messages: Any = [{"role": "user", "content": content}]
        reply = await client.chat.completions.create(model="m", messages=messages)
        return reply.choices[0].message.content

    assert await text("one") == await text("one")
    assert await text("one") != await text("two")


async def test_max_tokens_cuts_a_reply_and_says_so(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(
        model="m", messages=ASK, max_completion_tokens=5, **asked(20)
    )

    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 5


async def test_a_stream_carries_the_same_text_as_the_whole(client: openai.AsyncOpenAI) -> None:
    parts: list[str] = []
    reasons: list[str] = []
    usages = []
    stream: Any = await client.chat.completions.create(
        model="m", messages=ASK, stream=True, stream_options={"include_usage": True}, **asked(50)
    )
    async for chunk in stream:
        usages.append(chunk.usage)
        for choice in chunk.choices:
            parts.append(choice.delta.content or "")
            reasons += [choice.finish_reason] if choice.finish_reason else []

    assert len("".join(parts).split()) == 50
    assert reasons == ["stop"]
    assert usages[-1] is not None
    assert usages[-1].completion_tokens == 50
    assert usages[:-1] == [None] * (len(usages) - 1)


async def test_without_include_usage_a_stream_says_nothing_of_it(
    client: openai.AsyncOpenAI,
) -> None:
    stream: Any = await client.chat.completions.create(
        model="m", messages=ASK, stream=True, **asked(5)
    )

    assert [chunk.usage async for chunk in stream if chunk.usage is not None] == []


async def test_n_choices_come_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="m", messages=ASK, n=3, **asked(7))
    texts = {0: "", 1: "", 2: ""}
    stream: Any = await client.chat.completions.create(
        model="m", messages=ASK, n=3, stream=True, **asked(7)
    )
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""

    assert [len((c.message.content or "").split()) for c in whole.choices] == [7, 7, 7]
    assert [len(text.split()) for text in texts.values()] == [7, 7, 7]
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 21


async def test_a_tool_is_called_with_arguments_that_fit_its_schema(
    client: openai.AsyncOpenAI,
) -> None:
    reply = await client.chat.completions.create(model="m", messages=ASK, tools=[TOOL], **asked(10))

    (call,) = reply.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    arguments = json.loads(call.function.arguments)
    assert isinstance(arguments["city"], str)
    assert isinstance(arguments["days"], int)
    assert reply.choices[0].finish_reason == "tool_calls"


async def test_a_streamed_tool_call_adds_up_to_its_arguments(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model="m", messages=ASK, tools=[TOOL], **asked(10)
    ) as stream:
        final = await stream.get_final_completion()

    (call,) = final.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments).keys() == {"city", "days"}


async def test_after_a_tools_result_comes_text(client: openai.AsyncOpenAI) -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages: Any = [
        *ASK,
        {"role": "assistant", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]

    reply = await client.chat.completions.create(
        model="m", messages=messages, tools=[TOOL], **asked(4)
    )

    assert reply.choices[0].message.tool_calls is None
    assert reply.choices[0].message.content


async def test_structured_output_fits_its_schema(client: openai.AsyncOpenAI) -> None:
    class Answer(BaseModel):
        city: str
        sunny: bool
        days: list[int]

    reply = await client.chat.completions.parse(
        model="m", messages=ASK, response_format=Answer, **asked(12)
    )

    assert isinstance(reply.choices[0].message.parsed, Answer)


async def test_an_image_counts_as_prompt_tokens(client: openai.AsyncOpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "what is it"}, image]}]

    reply = await client.chat.completions.create(model="m", messages=messages, **asked(2))

    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 3 + 85


async def test_completions_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(
        model="m", prompt=["a b", "c"], max_tokens=9, **asked(9)
    )
    stream: Any = await client.completions.create(
        model="m", prompt="a b", max_tokens=9, stream=True, **asked(9)
    )
    text = "".join([chunk.choices[0].text async for chunk in stream])

    assert [len(choice.text.split()) for choice in whole.choices] == [9, 9]
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == 3
    assert len(text.split()) == 9


async def test_a_response_whole_and_streamed_is_the_same_kind_of_thing(
    client: openai.AsyncOpenAI,
) -> None:
    whole = await client.responses.create(model="m", input="hello there", **asked(11))
    async with client.responses.stream(model="m", input="hello there", **asked(11)) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()

    assert len(whole.output_text.split()) == len(final.output_text.split()) == 11
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.output_tokens) == (2, 11)
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.done") == 1


async def test_a_response_that_is_cut_is_incomplete(client: openai.AsyncOpenAI) -> None:
    reply = await client.responses.create(
        model="m", input="hello", max_output_tokens=3, **asked(11)
    )

    assert reply.status == "incomplete"
    assert reply.incomplete_details is not None
    assert reply.incomplete_details.reason == "max_output_tokens"


async def test_a_response_calls_a_function(client: openai.AsyncOpenAI) -> None:
    tool: Any = {"type": "function", **TOOL["function"], "strict": False}
    async with client.responses.stream(model="m", input="hi", tools=[tool], **asked(8)) as stream:
        final = await stream.get_final_response()

    (item,) = final.output
    assert item.type == "function_call"
    assert json.loads(item.arguments).keys() == {"city", "days"}


async def test_embeddings_depend_on_the_text_alone(client: openai.AsyncOpenAI) -> None:
    first = await client.embeddings.create(model="m", input=["a b", "c"])
    floats = await client.embeddings.create(model="m", input="a b", encoding_format="float")
    small = await client.embeddings.create(model="m", input="a b", dimensions=8)

    assert first.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-6)
    assert first.data[0].embedding != first.data[1].embedding
    assert len(small.data[0].embedding) == 8
    assert first.usage.prompt_tokens == 3


async def test_models_are_listed_and_looked_up(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["mock-model"]
    assert (await client.models.retrieve("anything")).id == "anything"


async def test_where_names_are_configured_an_unknown_model_is_404() -> None:
    settings = MockSettings(QUICK, models=("only-this",))
    async with (
        MockServer(settings) as mock,
        openai.AsyncOpenAI(base_url=f"{mock.url}/v1", api_key="x", max_retries=0) as client,
    ):
        assert (await client.models.retrieve("only-this")).id == "only-this"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("other")
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(model="other", messages=ASK)

    assert refused.value.code == "model_not_found"


async def test_where_keys_are_configured_any_other_is_401() -> None:
    async with MockServer(MockSettings(QUICK, api_keys=("good",))) as mock:
        for key, ok in (("good", True), ("bad", False)):
            async with openai.AsyncOpenAI(
                base_url=f"{mock.url}/v1", api_key=key, max_retries=0
            ) as client:
                if ok:
                    await client.models.list()
                else:
                    with pytest.raises(openai.AuthenticationError) as refused:
                        await client.models.list()

    assert refused.value.code == "invalid_api_key"


async def test_rate_limits_reach_the_client_as_headers_and_as_429() -> None:
    provider = {"model": "rate_limited", "rpm": 60, "burst_s": 1.0, "inner": QUICK}
    async with (
        MockServer(MockSettings(provider)) as mock,
        openai.AsyncOpenAI(base_url=f"{mock.url}/v1", api_key="x", max_retries=0) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=ASK, **asked(1)
        )
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="m", messages=ASK, **asked(1))

    assert raw.headers["x-ratelimit-limit-requests"] == "60"
    assert raw.headers["x-request-id"].startswith("req_mock")
    assert refused.value.code == "rate_limit_exceeded"
    assert 0 < int(refused.value.response.headers["retry-after-ms"]) <= 1000


async def test_a_spent_quota_is_told_apart_from_a_rate_limit() -> None:
    provider = {"model": "rate_limited", "quota_tokens": 5, "inner": QUICK}
    async with (
        MockServer(MockSettings(provider)) as mock,
        openai.AsyncOpenAI(base_url=f"{mock.url}/v1", api_key="x", max_retries=0) as client,
    ):
        await client.chat.completions.create(model="m", messages=ASK, **asked(10))
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="m", messages=ASK, **asked(1))

    assert refused.value.code == "insufficient_quota"
