"""Anthropic's API at Vertex AI: its SDK sends to paths of Google's."""

from typing import Any

import httpx
import httpx2
import pytest

from penstock.core.events import Completed, Dispatch
from tests.integrations.http.rig import BODY, Tape, penstock_with, scripted


@pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
async def test_anthropics_api_at_vertex_is_scheduled_by_the_model_in_its_path(library: Any) -> None:
    tape = Tape()
    reply = {"content": [{"type": "text", "text": "ho"}], "usage": {"output_tokens": 7}}
    url = "https://provider.example/v1/projects/p/locations/r/publishers/anthropic/models/claude@1"
    sent = {"max_tokens": 50, "messages": BODY["messages"]}
    asked: list[bytes] = []

    def provider(request: Any) -> Any:
        asked.append(request.content)
        return library.Response(200, json=reply)

    async with scripted(library, penstock_with(tape=tape), provider) as client:
        await client.post(f"{url}:rawPredict", json=sent)

    (dispatch,) = tape.of(Dispatch)
    assert (dispatch.request.model, tape.of(Completed)[0].output_tokens) == ("claude@1", 7)
    assert b"claude" not in asked[0]
