"""The official openai SDK behaves through penstock as it does against the provider."""

import asyncio
import base64
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.integration.conftest import Way

ASK: Any = [{"role": "user", "content": "Say something about mills."}]
TOKENS = {"x-mock-output-tokens": "12"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "open_gate",
        "parameters": {"type": "object", "properties": {"width": {"type": "number"}}},
    },
}

WAYS = ["direct", "sidecar", "in process", "in process on httpx"]
pytestmark = pytest.mark.parametrize("way", WAYS, indirect=True)


@pytest.fixture
def client(way: Way) -> OpenAI:
    return OpenAI(base_url=way.url + "/v1", api_key="test", max_retries=0, http_client=way.client())


@pytest.fixture
def aclient(way: Way) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=way.url + "/v1", api_key="test", max_retries=0, http_client=way.async_client()
    )


def test_a_completion_comes_whole(client: OpenAI) -> None:
    reply = client.chat.completions.create(model="m", messages=ASK, extra_headers=TOKENS)

    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 12


async def test_a_completion_comes_whole_to_a_coroutine(aclient: AsyncOpenAI) -> None:
    reply = await aclient.chat.completions.create(model="m", messages=ASK, extra_headers=TOKENS)

    assert reply.usage is not None
    assert reply.usage.completion_tokens == 12


def test_a_stream_comes_in_pieces_and_ends_with_its_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="m",
        messages=ASK,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={
            "x-mock-output-tokens": "1000"
        },  # for half a second: all that is due comes at once
    )

    chunks = list(stream)

    pieces = [
        c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content
    ]
    assert len(pieces) > 2
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 1000


async def test_a_stream_comes_in_pieces_to_a_coroutine(aclient: AsyncOpenAI) -> None:
    stream = await aclient.chat.completions.create(
        model="m", messages=ASK, stream=True, extra_headers={"x-mock-output-tokens": "100"}
    )

    text = [c.choices[0].delta.content or "" async for c in stream if c.choices]

    assert len("".join(text).split()) == 100


def test_a_stream_that_is_left_early_leaves_the_client_usable(client: OpenAI) -> None:
    with client.chat.completions.create(
        model="m", messages=ASK, stream=True, extra_headers={"x-mock-output-tokens": "4000"}
    ) as stream:
        next(iter(stream))

    reply = client.chat.completions.create(model="m", messages=ASK, extra_headers=TOKENS)
    assert reply.usage is not None


def test_a_tool_is_called_and_its_result_goes_back(client: OpenAI) -> None:
    reply = client.chat.completions.create(
        model="m", messages=ASK, tools=[TOOL], extra_headers=TOKENS
    )
    calls: Any = reply.choices[0].message.tool_calls
    assert reply.choices[0].finish_reason == "tool_calls"
    assert calls is not None
    assert calls[0].function.name == "open_gate"

    follow_up: Any = [
        *ASK,
        reply.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": calls[0].id, "content": "done"},
    ]
    final = client.chat.completions.create(
        model="m", messages=follow_up, tools=[TOOL], extra_headers=TOKENS
    )
    assert final.choices[0].message.content


def test_a_tool_call_can_be_streamed(client: OpenAI) -> None:
    stream: Any = client.chat.completions.create(
        model="m", messages=ASK, tools=[TOOL], stream=True, extra_headers=TOKENS
    )
    names = [
        c.choices[0].delta.tool_calls[0].function.name
        for c in stream
        if c.choices and c.choices[0].delta.tool_calls
    ]
    assert names[0] == "open_gate"


def test_an_image_goes_through(client: OpenAI) -> None:
    picture = base64.b64encode(bytes(range(256)) * 400).decode()
    reply = client.chat.completions.create(
        model="m",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is this?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
                ],
            }
        ],
        extra_headers=TOKENS,
    )
    assert reply.choices[0].message.content


def test_the_other_endpoints_answer(client: OpenAI) -> None:
    assert client.models.list().data
    completion = client.completions.create(model="m", prompt="water", extra_headers=TOKENS)
    assert completion.choices[0].text
    response = client.responses.create(model="m", input="water", extra_headers=TOKENS)
    assert response.output_text
    vectors = client.embeddings.create(model="m", input=["water", "mill"])
    assert len(vectors.data) == 2


def test_a_response_can_be_streamed(client: OpenAI) -> None:
    stream = client.responses.create(
        model="m", input="water", stream=True, extra_headers={"x-mock-output-tokens": "60"}
    )
    kinds = [event.type for event in stream]
    assert kinds[-1] == "response.completed"
    assert "response.output_text.delta" in kinds


def test_a_spent_account_is_a_rate_limit_error_at_once(client: OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(
            model="quota", messages=ASK, extra_headers={"x-mock-fault": "quota"}
        )
    assert raised.value.code == "insufficient_quota"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (500, openai.InternalServerError),
    ],
)
def test_an_error_of_the_provider_raises_its_usual_exception(
    client: OpenAI, status: int, kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind) as raised:
        client.chat.completions.create(
            model="m", messages=ASK, extra_headers={"x-mock-fault": f"status:{status}"}
        )
    assert raised.value.status_code == status


def test_a_web_page_is_text_from_the_provider_and_an_error_from_penstock(
    client: OpenAI, request: pytest.FixtureRequest
) -> None:
    def ask() -> object:
        return client.chat.completions.create(
            model="m", messages=ASK, extra_headers={"x-mock-fault": "not_json"}
        )

    if request.node.name.endswith("[direct]"):
        assert isinstance(ask(), str)
        return
    with pytest.raises(openai.InternalServerError, match="answers with a web page"):
        ask()


def test_a_stalled_stream_times_out_at_the_client(client: OpenAI) -> None:
    impatient = client.with_options(timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(
            model="m",
            messages=ASK,
            extra_headers={"x-mock-fault": "slow_first_token:30"},
        )


async def test_a_stalled_stream_times_out_at_a_coroutine(aclient: AsyncOpenAI) -> None:
    impatient = aclient.with_options(timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        await impatient.chat.completions.create(
            model="m", messages=ASK, extra_headers={"x-mock-fault": "slow_first_token:30"}
        )


def test_a_stream_that_is_reset_raises_within_it(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="m",
        messages=ASK,
        stream=True,
        extra_headers={"x-mock-fault": "reset", "x-mock-output-tokens": "500"},
    )
    with pytest.raises(Exception, match=r"(?i)peer closed|reset|incomplete|connection"):
        list(stream)


def test_raw_and_streamed_raw_responses_come_as_they_are(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="m", messages=ASK, extra_headers=TOKENS
    )
    assert raw.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().usage.completion_tokens == 12  # type: ignore[union-attr]

    with client.chat.completions.with_streaming_response.create(
        model="m", messages=ASK, extra_headers=TOKENS
    ) as streamed:
        assert b'"completion_tokens":12' in streamed.read().replace(b" ", b"")


async def test_a_call_that_is_cancelled_leaves_the_client_usable(aclient: AsyncOpenAI) -> None:
    slow = asyncio.create_task(
        aclient.chat.completions.create(
            model="m", messages=ASK, extra_headers={"x-mock-fault": "slow_first_token:30"}
        )
    )
    await asyncio.sleep(0.1)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    reply = await aclient.chat.completions.create(model="m", messages=ASK, extra_headers=TOKENS)
    assert reply.usage is not None
