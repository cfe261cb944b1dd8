"""What the provider keeps and counts is reached through penstock as it is without."""

import anthropic
import openai
import pytest
from openai import OpenAI

from tests.integration.conftest import Way

TOKENS = {"x-mock-output-tokens": "5"}


@pytest.fixture
def client(way: Way) -> OpenAI:
    return OpenAI(base_url=way.url + "/v1", api_key="test", max_retries=0, http_client=way.client())


def test_a_response_is_retrieved_continued_and_deleted(client: OpenAI) -> None:
    first = client.responses.create(model="m", input="Name a mill.", extra_headers=TOKENS)
    second = client.responses.create(
        model="m", input="Another.", previous_response_id=first.id, extra_headers=TOKENS
    )

    assert client.responses.retrieve(first.id).output_text == first.output_text
    assert second.previous_response_id == first.id
    assert client.responses.input_items.list(first.id).data
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_a_stored_completion_is_retrieved(client: OpenAI) -> None:
    stored = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "Store this."}],
        store=True,
        extra_headers=TOKENS,
    )

    assert client.chat.completions.retrieve(stored.id).id == stored.id


def test_tokens_are_counted_in_both_dialects(way: Way, client: OpenAI) -> None:
    other = anthropic.Anthropic(
        base_url=way.url, api_key="test", max_retries=0, http_client=way.client()
    )
    counted = other.messages.count_tokens(
        model="m", messages=[{"role": "user", "content": "one two three"}]
    )

    assert counted.input_tokens == 3
    assert client.responses.input_tokens.count(model="m", input="one two").input_tokens == 2
