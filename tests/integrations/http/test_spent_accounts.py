"""When an account is spent every caller hears so at once, in the provider's words and in ours."""

import time
from typing import Any

import httpx
import httpx2
import openai
import pytest

from penstock.errors import Refused
from penstock.integrations.http.refusing import refusal_of
from penstock.wire.words import MOST_WORDS_CHARS, words_of_refusal
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    REPLY,
    assert_idle,
    penstock_with,
    scripted_sync,
)

SAID = "You exceeded your current quota, please check your plan and billing details."
SPENT = {"error": {"code": "insufficient_quota", "message": f"{SAID} Key sk-proj-abcdef123456"}}


@pytest.mark.parametrize("library", [httpx2, httpx], ids=lambda each: each.__name__)
def test_later_calls_of_a_spent_account_repeat_the_providers_words(library: Any) -> None:
    asked: list[Any] = []

    def provider(request: Any) -> Any:
        asked.append(request)
        return library.Response(429, json=SPENT)

    scheduled = penstock_with()
    with scripted_sync(library, scheduled, provider) as client:
        first, second = (client.post(CHAT, json=BODY) for _ in range(2))

    assert len(asked) == 1
    assert (first.status_code, first.json()) == (429, SPENT)
    assert second.status_code == 429
    assert {each.headers["x-should-retry"] for each in (first, second)} == {"false"}
    message = second.json()["error"]["message"]
    assert message.startswith("penstock refused request")
    assert SAID in message
    assert "add credit" in message
    assert "try again in" in message
    assert "sk-proj" not in second.text
    assert_idle(scheduled)


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "Api-Key"])
@pytest.mark.parametrize("poor_first", [True, False])
def test_a_keys_spent_account_and_limits_hold_up_no_other_keys(
    header: str, poor_first: bool
) -> None:
    asked: list[str] = []

    def provider(request: Any) -> Any:
        poor = "poor" in request.headers[header]
        asked.append("poor" if poor else "rich")
        if not poor:
            return httpx2.Response(200, json=REPLY)
        none_left = {"x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "0"}
        return httpx2.Response(429, json=SPENT, headers={**none_left, "retry-after": "86400"})

    scheduled = penstock_with()
    scheme = "Bearer " if header == "authorization" else ""
    with scripted_sync(httpx2, scheduled, provider) as client:

        def status(key: str) -> int:
            found: int = client.post(CHAT, json=BODY, headers={header: scheme + key}).status_code
            return found

        order = ["poor", "rich"] if poor_first else ["rich", "poor"]
        found = {key: [status(key)] for key in order}
        for key in order * 2:
            found[key].append(status(key))

    assert found == {"poor": [429] * 3, "rich": [200] * 3}
    assert sorted(asked) == ["poor"] + ["rich"] * 3
    assert_idle(scheduled)


def test_an_sdk_does_not_sleep_on_a_spent_account(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)

    def provider(request: Any) -> Any:
        asked.append(request)
        return httpx2.Response(429, json=SPENT)

    scheduled = penstock_with()
    with scripted_sync(httpx2, scheduled, provider) as http:
        sdk = openai.OpenAI(api_key="k", base_url=CHAT.removesuffix("/chat/completions"),
                            http_client=http)  # fmt: skip
        for _ in range(3):
            with pytest.raises(openai.RateLimitError, match="exceeded your current quota") as told:
                sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    refused = refusal_of(told.value)
    assert isinstance(refused, Refused)
    assert (refused.reason, SAID in refused.provider_said) == ("quota", True)
    assert (len(asked), slept) == (1, [])
    assert_idle(scheduled)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"spent"}}', "spent"),
        (b'{"error":"spent"}', "spent"),
        (b'{"message":"a\\nb\\u001b[31m"}', "a b [31m"),
        (b'{"error":{"message":"Incorrect key sk-abc***9f."}}', "Incorrect key (hidden)"),
        (b'{"error":{"message":"key 0123456789abcdef0123456789abcdef"}}', "key (hidden)"),
        (b'{"error":{"message":"Bearer xyz is spent"}}', "(hidden) is spent"),
        (b"<html>", ""),
        (b'{"error":{"message":7}}', ""),
        (b"", ""),
    ],
)
def test_words_are_short_and_hold_no_key(body: bytes, words: str) -> None:
    assert words_of_refusal(body) == words


def test_long_words_are_cut() -> None:
    found = words_of_refusal(b'{"error":{"message":"%s"}}' % (b"ab " * 3000))
    assert len(found) == MOST_WORDS_CHARS
    assert found.endswith("...")
