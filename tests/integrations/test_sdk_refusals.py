"""In process a refusal is the SDK's own error, and says whether to try again."""

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

import penstock
from penstock import Penstock
from penstock.errors import Refused
from penstock.sim.mock.server import MockServer
from tests.integration.conftest import mock  # noqa: F401
from tests.integrations.http.rig import assert_idle, penstock_with

HELLO: Any = [{"role": "user", "content": "Say something about mills."}]
SDKS: list[tuple[type[Any], type[Exception], Any]] = [
    (openai.OpenAI, openai.InternalServerError, "httpx2"),
    (openai.OpenAI, openai.InternalServerError, "httpx"),
    (anthropic.Anthropic, anthropic.InternalServerError, "httpx2"),
]
Ask = Callable[..., Any]


@pytest.fixture
def scheduled() -> Iterator[Penstock]:
    scheduled = penstock_with(window=8)
    yield scheduled
    assert_idle(scheduled)


@pytest.fixture(params=SDKS, ids=["openai", "openai on httpx", "anthropic"])
def sdk(
    request: pytest.FixtureRequest,
    mock: MockServer,  # noqa: F811
    scheduled: Penstock,
) -> tuple[Ask, type[Exception]]:
    kind, error, library = request.param
    suffix = "/v1" if kind is openai.OpenAI else ""
    http = scheduled.client(library=library)
    client = kind(base_url=mock.url + suffix, api_key="test", max_retries=0, http_client=http)
    calls = client.chat.completions if kind is openai.OpenAI else client.messages

    def ask(**more: Any) -> Any:
        return calls.with_raw_response.create(model="m", messages=HELLO, max_tokens=5, **more)

    return ask, error


@pytest.fixture
def refusal(
    sdk: tuple[Ask, type[Exception]],
    scheduled: Penstock,
    mock: MockServer,  # noqa: F811
) -> Callable[..., Any]:
    """Return what asks while penstock drains, and returns the error that the SDK raises."""
    ask, error = sdk
    scheduled.outlet(mock.url.removeprefix("http://")).gate.drain()

    def refused(**more: Any) -> Any:
        with pytest.raises(error) as raised:
            ask(**more)
        return raised.value

    return refused


def test_a_final_refusal_is_the_sdks_error_and_ours(refusal: Callable[..., Any]) -> None:
    refused = refusal(extra_headers={"x-penstock-deadline-ms": "100"})

    assert isinstance(refused, Refused)
    assert refused.reason == "draining"
    assert refused.response.headers["x-should-retry"] == "false"  # type: ignore[attr-defined]
    assert penstock.refusal_of(refused) is refused


def test_a_refusal_that_is_worth_a_new_try_lets_the_sdk_try(refusal: Callable[..., Any]) -> None:
    error = refusal()

    assert error.response.headers["x-should-retry"] == "true"
    refused = penstock.refusal_of(error)
    assert refused is not None
    assert (refused.reason, refused.retry_after_s) == ("draining", 5.0)


def test_an_answer_carries_the_id_of_its_request(sdk: tuple[Ask, type[Exception]]) -> None:
    ask, _ = sdk

    assert "-" in ask().headers["x-penstock-id"]
