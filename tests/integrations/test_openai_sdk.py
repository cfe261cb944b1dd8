"""The tests of the openai SDK against a provider hold through penstock's transports too."""

# mypy: disable-error-code="no-redef"
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

import penstock
from penstock import Penstock
from penstock.errors import Refused
from penstock.sim.mock.server import MockServer
from tests.integration.conftest import mock  # noqa: F401
from tests.integration.test_openai_sdk import *  # noqa: F403
from tests.integrations.http.rig import assert_idle, penstock_with

HELLO: Any = [{"role": "user", "content": "Say something about mills."}]


@pytest.fixture
def scheduled() -> Iterator[Penstock]:
    scheduled = penstock_with(window=8)
    yield scheduled
    assert_idle(scheduled)


@pytest.fixture(params=["httpx2", "httpx"])
def client(
    mock: MockServer,  # noqa: F811
    scheduled: Penstock,
    request: pytest.FixtureRequest,
) -> OpenAI:
    http_client = scheduled.client(library=request.param)
    return OpenAI(base_url=mock.url + "/v1", api_key="test", max_retries=0, http_client=http_client)


@pytest.fixture(params=["httpx2", "httpx"])
def aclient(
    mock: MockServer,  # noqa: F811
    scheduled: Penstock,
    request: pytest.FixtureRequest,
) -> AsyncOpenAI:
    http_client = scheduled.async_client(library=request.param)
    return AsyncOpenAI(
        base_url=mock.url + "/v1", api_key="test", max_retries=0, http_client=http_client
    )


def test_a_final_refusal_is_the_sdks_error_and_ours(client: OpenAI, scheduled: Penstock) -> None:
    host = str(client.base_url.host) + ":" + str(client.base_url.port)
    scheduled.outlet(host).gate.drain()
    with pytest.raises(openai.InternalServerError) as raised:
        client.with_options(max_retries=0).chat.completions.create(
            model="m", messages=HELLO, extra_headers={"x-penstock-deadline-ms": "100"}
        )
    assert isinstance(raised.value, Refused)
    assert raised.value.reason == "draining"
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert penstock.refusal_of(raised.value) is raised.value


def test_a_refusal_that_is_worth_a_new_try_lets_the_sdk_try(
    client: OpenAI, scheduled: Penstock
) -> None:
    host = str(client.base_url.host) + ":" + str(client.base_url.port)
    scheduled.outlet(host).gate.drain()
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(model="m", messages=HELLO)
    assert raised.value.response.headers["x-should-retry"] == "true"
    refused = penstock.refusal_of(raised.value)
    assert refused is not None
    assert (refused.reason, refused.retry_after_s) == ("draining", 5.0)


def test_raw_responses_carry_the_id(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="m", messages=HELLO, max_tokens=5)
    assert "-" in raw.headers["x-penstock-id"]
    assert raw.parse().choices
