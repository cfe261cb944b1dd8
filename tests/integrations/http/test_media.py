"""Pictures and sound in process: forms are read for their estimate, sound is no broken reply."""

from typing import Any

import httpx
import httpx2
import openai
import pytest

from penstock.core.events import Arrived, Completed
from tests.integrations.http.rig import Tape, assert_idle, penstock_with, scripted

pytestmark = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
SOUND = b"ID3" + bytes(range(256)) * 4


def provider(library: Any, request: Any) -> Any:
    """Answer as a provider of pictures and sound."""
    path = request.url.path
    if path.endswith("/speech"):
        return library.Response(200, content=SOUND, headers={"content-type": "audio/mpeg"})
    if path.endswith(("/transcriptions", "/translations")):
        if b"srt" in request.content:
            return library.Response(200, text="1\nhi\n")
        return library.Response(200, json={"text": "hi"})
    usage = {"input_tokens": 9, "output_tokens": 1056}
    return library.Response(
        200, json={"created": 1, "data": [{"b64_json": "UE5H"}], "usage": usage}
    )


@pytest.fixture
def tape() -> Tape:
    return Tape()


async def test_a_form_is_estimated_by_what_it_holds(library: Any, tape: Tape) -> None:
    scheduled = penstock_with(tape=tape)
    http = scripted(library, scheduled, lambda request: provider(library, request))
    async with http:
        client = openai.AsyncOpenAI(base_url="https://x/v1", api_key="k", http_client=http)
        heard = await client.audio.transcriptions.create(
            model="whisper-1", file=bytes(160_000), response_format="srt"
        )
        edited = await client.images.edit(model="gpt-image-1", image=b"PNG", prompt="x", n=2)

    assert "hi" in str(heard)
    assert edited.data
    sound, picture = (arrived.request for arrived in tape.of(Arrived))
    assert (sound.model, sound.estimate.p50_tokens) == ("whisper-1", 30.0)
    assert (picture.model, picture.estimate.p50_tokens) == ("gpt-image-1", 2112.0)
    assert [done.output_tokens for done in tape.of(Completed)] == [None, 1056]
    assert_idle(scheduled)


async def test_speech_comes_through_and_completes(library: Any, tape: Tape) -> None:
    scheduled = penstock_with(tape=tape)
    http = scripted(library, scheduled, lambda request: provider(library, request))
    async with http:
        client = openai.AsyncOpenAI(base_url="https://x/v1", api_key="k", http_client=http)
        spoken = await client.audio.speech.create(model="tts-1", voice="alloy", input="x" * 150)

    assert spoken.content == SOUND
    (arrived,) = tape.of(Arrived)
    assert arrived.request.estimate.p50_tokens == 210.0
    assert len(tape.of(Completed)) == 1
    assert_idle(scheduled)
