"""The mock's pictures, sound, verdicts, ranks and log probabilities, as OpenAI's SDK reads them."""

import base64
import io
import wave
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from openai.types.responses import Response

from penstock.sim.mock.server import MockServer

WORDS = {"x-mock-output-tokens": "3"}


@pytest.fixture
async def gpt(quick: MockServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{quick.url}/v1", api_key="any", max_retries=0
    ) as found:
        yield found


async def test_pictures_are_pngs_also_of_a_form(gpt: openai.AsyncOpenAI) -> None:
    made = await gpt.images.generate(model="gpt-image-1", prompt="a mill", n=2)
    edited = await gpt.images.edit(
        model="gpt-image-1", prompt="a wheel", image=("a.png", b"png", "image/png"), n=2
    )

    for answer in (made, edited):
        assert answer.data is not None
        pictures = [base64.b64decode(each.b64_json or "") for each in answer.data]
        assert len(pictures) == 2
        assert all(each.startswith(b"\x89PNG\r\n") for each in pictures)


async def test_speech_is_silence_of_the_texts_length(gpt: openai.AsyncOpenAI) -> None:
    spoken = await gpt.audio.speech.create(model="tts", voice="alloy", input="ten words " * 5)

    with wave.open(io.BytesIO(spoken.read())) as sound:
        assert sound.getnframes() == sound.getframerate()


@pytest.mark.parametrize("call", ["transcriptions", "translations"])
async def test_what_is_heard_is_the_drawn_reply(gpt: openai.AsyncOpenAI, call: str) -> None:
    heard = await getattr(gpt.audio, call).create(
        model="whisper-1", file=("a.wav", b"RIFF"), extra_headers=WORDS
    )

    assert len(heard.text.split()) == 3


async def test_a_sound_without_a_form_is_refused(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/audio/transcriptions", json={"model": "whisper-1"})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "file"


async def test_nothing_is_flagged(gpt: openai.AsyncOpenAI) -> None:
    found = await gpt.moderations.create(input=["a", "b"])

    assert [each.flagged for each in found.results] == [False, False]


async def test_ranks_repeat_and_are_cut(http: httpx2.AsyncClient) -> None:
    body = {"model": "m", "query": "mill", "documents": ["a", "b", "c"]}
    whole, again = [(await http.post("/v1/rerank", json=body)).json() for _ in range(2)]
    best = (await http.post("/v1/rerank", json={**body, "top_n": 1})).json()["results"]

    assert whole == again
    scores = [each["relevance_score"] for each in whole["results"]]
    assert scores == sorted(scores, reverse=True)
    assert best == whole["results"][:1]


async def test_old_completions_have_their_own_logprobs(gpt: openai.AsyncOpenAI) -> None:
    found = await gpt.completions.create(model="m", prompt="hello", logprobs=2, extra_headers=WORDS)

    told = found.choices[0].logprobs
    assert told is not None
    assert "".join(told.tokens or ()) == found.choices[0].text
    assert [len(each) for each in told.top_logprobs or ()] == [2, 2, 2]
    with pytest.raises(openai.BadRequestError, match="logprobs"):
        await gpt.completions.create(model="m", prompt="hello", logprobs=6)


async def test_a_response_has_logprobs_where_they_are_asked_for(gpt: openai.AsyncOpenAI) -> None:
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    bare = await gpt.responses.create(model="m", input="hello", extra_headers=WORDS)
    told = await gpt.responses.create(
        model="m", input="hello", extra_headers=WORDS, extra_body=asked
    )

    assert _text_of(bare)["logprobs"] == []
    assert "".join(each["token"] for each in _text_of(told)["logprobs"]) == told.output_text


def _text_of(response: Response) -> Any:
    return response.to_dict()["output"][0]["content"][0]  # type: ignore[index]
