"""Bad bodies, bad headers, unknown paths: the vendors' errors, never a hang or a traceback."""

from typing import Any

import httpx2
import pytest

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.sim.mock.world import QUICK, chat_body

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, b"{"),
        (CHAT, b"[]"),
        (CHAT, b"\xff\xfe"),
        (CHAT, {}),
        (CHAT, {"model": "m"}),
        (CHAT, {"messages": [{"role": "user", "content": "x"}]}),
        (CHAT, chat_body(messages=[])),
        (CHAT, chat_body(messages=["x"])),
        (CHAT, chat_body(messages=[{"content": "x"}])),
        (CHAT, chat_body(messages=[{"role": "user", "content": 5}])),
        (CHAT, chat_body(messages=[{"role": "user", "content": [5]}])),
        (CHAT, chat_body(model=5)),
        (CHAT, chat_body(stream="yes")),
        (CHAT, chat_body(max_tokens=0)),
        (CHAT, chat_body(max_tokens=1.5)),
        (CHAT, chat_body(n=True)),
        (CHAT, chat_body(stream_options=[])),
        (CHAT, chat_body(tools="x")),
        (CHAT, chat_body(tools=[{"type": "function"}])),
        (CHAT, chat_body(response_format=5)),
        (
            CHAT,
            chat_body(
                tools=[{"type": "function", "function": {"name": "a"}}],
                tool_choice={"type": "function", "function": {"name": "b"}},
            ),
        ),
        ("/v1/completions", {"model": "m", "prompt": 5}),
        ("/v1/responses", {"model": "m", "input": []}),
        ("/v1/responses", {"model": "m", "input": [5]}),
        ("/v1/embeddings", {"model": "m", "input": {}}),
        ("/v1/messages", {"model": "m", "messages": [{"role": "user", "content": "x"}]}),
    ],
)
async def test_a_bad_body_is_400_in_the_vendors_shape(
    http: httpx2.AsyncClient, path: str, body: Any
) -> None:
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}

    answer = await http.post(path, **sent)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-mock-output-tokens": "-1"},
        {"x-mock-output-tokens": "many"},
        {"x-mock-fault": "fire"},
        {"x-mock-fault": "status:200"},
        {"x-mock-fault": "status:x"},
        {"x-mock-fault": "slow_first_token:x"},
    ],
)
async def test_a_bad_header_of_our_own_is_400(
    http: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await http.post(CHAT, json=chat_body(), headers=headers)

    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("POST", "/v1/unknown", 404),
        ("GET", "/", 404),
        ("POST", "/v1/models", 404),
    ],
)
async def test_other_paths_and_methods_are_refused(
    http: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path)

    assert answer.status_code == status
    assert "error" in answer.json()


async def test_a_body_beyond_the_limit_is_413() -> None:
    async with (
        MockServer(MockSettings(QUICK, max_body_bytes=1000)) as mock,
        httpx2.AsyncClient(base_url=mock.url) as http,
    ):
        answer = await http.post(CHAT, content=b"x" * 2000)

    assert answer.status_code == 413


async def test_the_mock_counts_what_it_refused(http: httpx2.AsyncClient, quick: MockServer) -> None:
    before = quick.stats()

    await http.post(CHAT, content=b"{")

    after = quick.stats()
    assert after["refused"]["400"] == before["refused"].get("400", 0) + 1
    assert after["requests"][CHAT] == before["requests"].get(CHAT, 0) + 1
    assert after["in_flight"] == 0
