"""The official anthropic SDK behaves through penstock as it does against the provider."""

import base64
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.integration.conftest import Way

ASK: Any = [{"role": "user", "content": "Say something about mills."}]
TOKENS = {"x-mock-output-tokens": "12"}
TOOL: Any = {
    "name": "open_gate",
    "input_schema": {"type": "object", "properties": {"width": {"type": "number"}}},
}


@pytest.fixture
def client(way: Way) -> Anthropic:
    return Anthropic(base_url=way.url, api_key="test", max_retries=0, http_client=way.client())


@pytest.fixture
def aclient(way: Way) -> AsyncAnthropic:
    return AsyncAnthropic(
        base_url=way.url, api_key="test", max_retries=0, http_client=way.async_client()
    )


def test_a_message_comes_whole(client: Anthropic) -> None:
    reply = client.messages.create(model="m", max_tokens=50, messages=ASK, extra_headers=TOKENS)
    assert reply.content[0].type == "text"
    assert reply.usage.output_tokens == 12


async def test_a_message_comes_whole_to_a_coroutine(aclient: AsyncAnthropic) -> None:
    reply = await aclient.messages.create(
        model="m", max_tokens=50, messages=ASK, extra_headers=TOKENS
    )
    assert reply.usage.output_tokens == 12


def test_a_stream_comes_in_pieces(client: Anthropic) -> None:
    with client.messages.stream(
        model="m", max_tokens=2000, messages=ASK, extra_headers={"x-mock-output-tokens": "1000"}
    ) as stream:  # for half a second: all that is due comes at once
        pieces = list(stream.text_stream)
        final = stream.get_final_message()

    assert len(pieces) > 2
    assert final.usage.output_tokens == 1000


async def test_a_stream_comes_in_pieces_to_a_coroutine(aclient: AsyncAnthropic) -> None:
    async with aclient.messages.stream(
        model="m", max_tokens=500, messages=ASK, extra_headers={"x-mock-output-tokens": "100"}
    ) as stream:
        text = "".join([piece async for piece in stream.text_stream])

    assert len(text.split()) == 100


def test_a_tool_is_called_and_its_result_goes_back(client: Anthropic) -> None:
    reply = client.messages.create(
        model="m", max_tokens=50, messages=ASK, tools=[TOOL], extra_headers=TOKENS
    )
    assert reply.stop_reason == "tool_use"
    use = next(block for block in reply.content if block.type == "tool_use")
    assert use.name == "open_gate"

    result = {"type": "tool_result", "tool_use_id": use.id, "content": "done"}
    follow_up: Any = [
        *ASK,
        {"role": "assistant", "content": [use.model_dump()]},
        {"role": "user", "content": [result]},
    ]
    final = client.messages.create(
        model="m",
        max_tokens=50,
        messages=follow_up,
        tools=[TOOL],
        extra_headers=TOKENS,
    )
    assert final.content[0].type == "text"


def test_an_image_goes_through(client: Anthropic) -> None:
    picture = base64.b64encode(bytes(range(256)) * 400).decode()
    reply = client.messages.create(
        model="m",
        max_tokens=50,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is this?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": picture},
                    },
                ],
            }
        ],
        extra_headers=TOKENS,
    )
    assert reply.content[0].type == "text"


def test_models_are_listed(client: Anthropic) -> None:
    assert client.models.list().data


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (422, anthropic.UnprocessableEntityError),
        (500, anthropic.InternalServerError),
    ],
)
def test_an_error_of_the_provider_raises_its_usual_exception(
    client: Anthropic, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(kind) as raised:
        client.messages.create(
            model="m",
            max_tokens=50,
            messages=ASK,
            extra_headers={"x-mock-fault": f"status:{status}"},
        )
    assert raised.value.status_code == status


def test_a_late_first_token_times_out_at_the_client(client: Anthropic) -> None:
    impatient = client.with_options(timeout=0.5)
    with pytest.raises(anthropic.APITimeoutError):
        impatient.messages.create(
            model="m",
            max_tokens=50,
            messages=ASK,
            extra_headers={"x-mock-fault": "slow_first_token:30"},
        )


def test_raw_responses_come_as_they_are(client: Anthropic) -> None:
    raw = client.messages.with_raw_response.create(
        model="m", max_tokens=50, messages=ASK, extra_headers=TOKENS
    )
    assert raw.status_code == 200
    assert raw.parse().usage.output_tokens == 12
