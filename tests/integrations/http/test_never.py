"""One request that can never pass fails alone, at once, in the provider's words."""

import json
from typing import Any

import httpx
import httpx2
import pytest

from penstock.core.events import Failed, Throttled
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    REPLY,
    Tape,
    assert_idle,
    penstock_with,
    scripted_sync,
)

TOO_LARGE = {
    "error": {
        "message": "Request too large for m on tokens per min (TPM): Limit 30000, Requested 45000.",
        "type": "tokens",
        "code": "rate_limit_exceeded",
    }
}


@pytest.mark.parametrize("library", [httpx2, httpx], ids=lambda each: each.__name__)
def test_what_is_too_large_for_any_minute_is_asked_once_and_holds_up_nobody(library: Any) -> None:
    asked: list[str] = []

    def provider(request: Any) -> Any:
        model = json.loads(request.content)["model"]
        asked.append(model)
        if model == "poison":
            return library.Response(429, json=TOO_LARGE, headers={"retry-after": "60"})
        return library.Response(200, json=REPLY)

    tape = Tape()
    scheduled = penstock_with(tape=tape)
    client = scripted_sync(library, scheduled, provider)
    refused = client.post(CHAT, json={**BODY, "model": "poison"})
    good = [client.post(CHAT, json=BODY).status_code for _ in range(5)]

    assert asked == ["poison", *["m"] * 5]
    assert good == [200] * 5
    assert (refused.status_code, refused.json()) == (429, TOO_LARGE)
    assert refused.headers["x-should-retry"] == "false"
    assert tape.of(Throttled) == []
    assert [each.upstream_fault for each in tape.of(Failed)] == [False]
    assert_idle(scheduled)


@pytest.mark.parametrize(
    ("status", "advice", "attempts"), [(500, "false", 1), (429, "false", 1), (409, "true", 2)]
)
def test_the_providers_word_on_trying_again_is_obeyed(
    status: int, advice: str, attempts: int
) -> None:
    asked: list[int] = []

    def provider(_request: Any) -> Any:
        asked.append(status)
        if len(asked) == 1:
            return httpx2.Response(status, headers={"x-should-retry": advice})
        return httpx2.Response(200, json=REPLY)

    scheduled_client = scripted_sync(httpx2, penstock_with(), provider)
    answer = scheduled_client.post(CHAT, json=BODY)

    assert len(asked) == attempts
    assert answer.status_code == (status if attempts == 1 else 200)
