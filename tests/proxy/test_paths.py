"""The base URL is all that changes: every SDK's paths lead to the same calls."""

import json
from collections.abc import Iterator

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.proxy.routing import route_of
from penstock.wire.endpoint import Vendor
from tests.proxy.keeper import Keeper, keeper
from tests.proxy.sidecars import SidecarThread, call, in_front_of, sidecar

SPEECH = b"ID3" + bytes(range(256)) * 8


class Studio(Keeper):
    """A provider of pictures and sound."""

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, object]:
        path = target.partition("?")[0]
        if path.startswith("/v1/images/"):
            return 200, {"created": 1, "data": [{"b64_json": "UE5H"}], "usage": USAGE}
        if path == "/v1/audio/speech":
            return 200, SPEECH
        if path.startswith("/v1/audio/"):
            return 200, b"1\n00:00 --> 00:01\nhi\n" if b"srt" in body else {"text": "hi"}
        if path == "/v1/moderations":
            return 200, {"id": "modr-1", "model": "m", "results": []}
        if path == "/v1/rerank":
            return 200, {"results": [{"index": 0, "relevance_score": 0.5}]}
        if path == "/v1/chat/completions" and method == "POST":
            message = {"role": "assistant", "content": json.loads(body)["model"]}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            return 200, {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                         "choices": choices}  # fmt: skip
        return super().answer(method, target, body)


USAGE = {"input_tokens": 9, "output_tokens": 1056, "total_tokens": 1065}


@pytest.fixture(scope="module")
def studio() -> Iterator[Keeper]:
    with keeper("s", Studio) as it:
        yield it


@pytest.fixture(scope="module")
def proxy(studio: Keeper) -> Iterator[SidecarThread]:
    rename = 'rename = { "picture" = "gpt-image-1" }\nmodels = ["*"]'
    with sidecar(in_front_of(studio.url, upstream=rename)) as running:
        yield running


@pytest.fixture
def client(proxy: SidecarThread) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.url + "/v1", api_key="k", max_retries=0)


@pytest.mark.parametrize(
    ("path", "taken_for", "model"),
    [
        ("/v1/chat/completions", "/v1/chat/completions", ""),
        ("/chat/completions/", "/v1/chat/completions", ""),
        ("/openai/v1/responses", "/v1/responses", ""),
        ("/v1beta/openai/embeddings", "/v1/embeddings", ""),
        ("/anthropic/v1/messages", "/v1/messages", ""),
        ("/openai/deployments/gpt%2F4/chat/completions", "/v1/chat/completions", "gpt/4"),
        ("/openai/deployments/w/audio/transcriptions", "/v1/audio/transcriptions", "w"),
        ("/v2/rerank", "/v1/rerank", ""),
        ("//v1//chat/completions//", "/v1/chat/completions", ""),
        ("//openai//deployments//w/chat/completions", "/v1/chat/completions", "w"),
        ("/v1/chat/completion%73", "/v1/chat/completions", ""),
        ("/v1/models/org%2Fname", "/v1/models/org%2Fname", "org/name"),
        ("/models/org/name", "/v1/models/org/name", "org/name"),
        ("/files/file-1/content", "/v1/files/file-1/content", ""),
        ("/v1/responses/resp_1/input_items", "/v1/responses/resp_1/input_items", ""),
        ("/v1/responses/compact", "/v1/responses/compact", ""),
        ("/v1/messages/batches/b/results", "/v1/messages/batches/b/results", ""),
    ],
)
def test_a_path_is_taken_for_the_vendors_own(path: str, taken_for: str, model: str) -> None:
    route = route_of(path)

    assert route is not None
    assert (route.path, route.model) == (taken_for, model)
    assert route.endpoint or route.family
    anthropic = "messages" in path
    assert route.vendor is None or (route.vendor is Vendor.ANTHROPIC) == anthropic


@given(st.lists(st.sampled_from(["v1", "files", "..", ".", "", "%2e%2E", "a%2f..", "%5c", "x"])))
def test_no_path_leaves_the_base_url(parts: list[str]) -> None:
    route = route_of("/" + "/".join(parts))

    if route is not None:
        assert route.path.startswith("/v1/")
        assert not {"..", ".", ""} & {each for part in route.segments for each in part.split("/")}
        assert "\\" not in "".join(route.segments)


def test_pictures_are_made_and_edited(client: openai.OpenAI, studio: Keeper) -> None:
    made = client.images.generate(model="picture", prompt="a mill", n=1)
    edited = client.images.edit(model="picture", image=b"PNG", prompt="a weir")

    assert made.data
    assert edited.data
    (_, _, _, body), (_, _, headers, form) = studio.asked[-2:]
    assert json.loads(body)["model"] == "gpt-image-1"
    assert headers["content-type"].startswith("multipart/form-data")
    assert b'name="model"\r\n\r\ngpt-image-1\r\n' in form
    assert b"\r\nPNG\r\n" in form


def test_sound_is_heard_and_spoken(client: openai.OpenAI) -> None:
    heard = client.audio.transcriptions.create(model="whisper-1", file=b"RIFF")
    subtitles = client.audio.transcriptions.create(
        model="whisper-1", file=b"RIFF", response_format="srt"
    )
    translated = client.audio.translations.create(model="whisper-1", file=b"RIFF")
    spoken = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.")

    assert heard.text == translated.text == "hi"
    assert "00:00 --> 00:01" in str(subtitles)
    assert spoken.content == SPEECH


def test_moderations_and_rerank_are_scheduled(client: openai.OpenAI, proxy: SidecarThread) -> None:
    reply = client.moderations.with_raw_response.create(input="x")
    ranked = call(proxy.port, "/v2/rerank", body={"model": "r", "query": "q", "documents": ["a"]})

    assert reply.headers["x-penstock-decision"] == "dispatched"
    assert ranked.headers["x-penstock-decision"] == "dispatched"
    assert ranked.json()["results"][0]["index"] == 0


def test_azures_sdk_needs_no_more_than_the_endpoint(proxy: SidecarThread, studio: Keeper) -> None:
    azure = openai.AzureOpenAI(
        azure_endpoint=proxy.url, api_key="k", api_version="2024-10-21", max_retries=0
    )
    reply = azure.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hi"}]
    )

    assert reply.choices[0].message.content == "gpt-4o"
    assert studio.targets[-1] == "POST /v1/chat/completions"


def test_a_deployment_names_the_model_that_the_body_does_not(proxy: SidecarThread) -> None:
    path = "/openai/deployments/my%2Fmodel/chat/completions?api-version=2024-10-21&a=b"
    for body in (b'{"messages": []}', b"{}", b' { "messages": [] }', b'{"model": ""}'):
        reply = call(proxy.port, path, body=body)
        assert reply.json()["choices"][0]["message"]["content"] == "my/model"


def test_a_form_gets_its_deployments_name(proxy: SidecarThread, studio: Keeper) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nA\r\n--x--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    path = "/openai/deployments/whisper/audio/translations"
    assert call(proxy.port, path, body=form, headers=kind).json() == {"text": "hi"}

    assert studio.asked[-1][3].count(b'name="model"\r\n\r\nwhisper\r\n--x\r\n') == 1
    cut = call(proxy.port, "/v1/audio/translations", body=form[:-6], headers=kind)
    assert (cut.status, cut.json()["error"]["code"]) == (400, "invalid_form")


def test_a_models_encoded_slash_stays_encoded(proxy: SidecarThread, studio: Keeper) -> None:
    assert call(proxy.port, "/v1/models/org%2Fname", method="GET", body=None).status == 200
    assert studio.targets[-1] == "GET /v1/models/org%2Fname"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/audio/speech", "POST"),
        ("HEAD", "/v1/audio/speech", "POST"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models/m", "GET, HEAD"),
        ("PUT", "/v1/files", "GET, HEAD, POST, DELETE"),
    ],
)
def test_another_method_is_a_405_that_says_which(
    proxy: SidecarThread, method: str, path: str, allow: str
) -> None:
    reply = call(proxy.port, path, method=method, body=None)
    assert (reply.status, reply.headers["allow"]) == (405, allow)


def test_head_is_answered_as_get_is_without_a_body(proxy: SidecarThread, studio: Keeper) -> None:
    whole = call(proxy.port, "/v1/models", method="GET", body=None)
    head = call(proxy.port, "/v1/models", method="HEAD", body=None)

    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))
    assert studio.targets[-1] == "GET /v1/models"  # few servers answer HEAD there
    head = call(proxy.port, "/v1/files/f/content", method="HEAD", body=None)
    assert (head.status, head.body) == (404, b"")
    assert studio.targets[-1] == "HEAD /v1/files/f/content"  # which may be large


def test_stored_calls_are_listed_by_the_provider(client: openai.OpenAI, studio: Keeper) -> None:
    assert client.chat.completions.list(limit=2).data == []
    assert studio.targets[-1] == "GET /v1/chat/completions?limit=2"


@pytest.mark.parametrize("path", ["/v1/realtime?model=m", "/v1/responses"])
def test_a_websocket_is_refused_in_words(proxy: SidecarThread, path: str) -> None:
    headers = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    reply = call(proxy.port, path, method="GET", body=None, headers=headers)

    assert (reply.status, reply.headers["upgrade"]) == (426, "HTTP/1.1")
    assert "stream: true" in reply.json()["error"]["message"]
