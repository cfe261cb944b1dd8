"""Misbehaviour on demand, and clients that leave: the mock's place is free afterwards."""

import asyncio

import httpx2
import pytest

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.sim.mock.world import GLACIAL, QUICK, chat_body, eventually

CHAT = "/v1/chat/completions"


def fault(kind: str) -> dict[str, str]:
    return {"x-mock-fault": kind, "x-mock-output-tokens": "40"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["reset", "reset_at_once"])
async def test_a_reset_breaks_the_connection(
    http: httpx2.AsyncClient, kind: str, stream: bool
) -> None:
    with pytest.raises(httpx2.TransportError):
        await http.post(CHAT, json=chat_body(stream=stream), headers=fault(kind))


async def test_a_stream_that_is_reset_has_begun(http: httpx2.AsyncClient) -> None:
    request = http.build_request("POST", CHAT, json=chat_body(stream=True), headers=fault("reset"))

    answer = await http.send(request, stream=True)

    assert answer.status_code == 200
    with pytest.raises(httpx2.TransportError):
        await answer.aread()


async def test_a_truncated_stream_ends_without_done(http: httpx2.AsyncClient) -> None:
    answer = await http.post(CHAT, json=chat_body(stream=True), headers=fault("truncate"))

    assert answer.status_code == 200
    assert b"[DONE]" not in answer.content
    assert b"data: {" in answer.content


async def test_bad_sse_is_an_event_that_is_no_json(http: httpx2.AsyncClient) -> None:
    answer = await http.post(CHAT, json=chat_body(stream=True), headers=fault("bad_sse"))

    assert answer.content.endswith(b"data: {this is no json\n\n")


async def test_not_json_is_a_page_with_status_200(http: httpx2.AsyncClient) -> None:
    answer = await http.post(CHAT, json=chat_body(), headers=fault("not_json"))

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("status:503", 503, None),
        ("status:429", 429, "rate_limit_exceeded"),
        ("quota", 429, "insufficient_quota"),
    ],
)
async def test_a_status_on_demand(
    http: httpx2.AsyncClient, kind: str, status: int, code: str | None
) -> None:
    answer = await http.post(CHAT, json=chat_body(), headers=fault(kind))

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_place(stream: bool) -> None:
    async with MockServer(MockSettings(GLACIAL)) as mock, httpx2.AsyncClient(timeout=60) as http:
        body = chat_body(stream=stream)
        calls = [asyncio.create_task(http.post(f"{mock.url}{CHAT}", json=body)) for _ in range(3)]
        await eventually(lambda: mock.stats()["provider_queued"] == 1)
        assert mock.stats()["provider_active"] == 2

        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

        await eventually(lambda: mock.stats()["in_flight"] == 0)
        stats = mock.stats()
    assert (stats["provider_active"], stats["provider_queued"]) == (0, 0)
    assert (stats["cancelled"], stats["finished"]) == (3, 0)
    assert (stats["provider_peak_active"], stats["provider_peak_queued"]) == (2, 1)


@pytest.mark.parametrize("kind", ["stall", "slow_first_token:3600"])
async def test_a_client_that_gives_up_on_a_silent_reply_frees_its_place(kind: str) -> None:
    async with MockServer(MockSettings(QUICK)) as mock, httpx2.AsyncClient(timeout=60) as http:
        call = asyncio.create_task(
            http.post(f"{mock.url}{CHAT}", json=chat_body(stream=True), headers=fault(kind))
        )
        await eventually(lambda: mock.stats()["in_flight"] == 1)

        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

        await eventually(lambda: mock.stats()["in_flight"] == 0)
        assert mock.stats()["provider_active"] == 0


async def test_the_providers_own_faults_reach_the_client() -> None:
    windows = [{"kind": "reset", "after_tokens": 3}]
    provider = {"model": "faulty", "inner": QUICK, "windows": windows}
    async with MockServer(MockSettings(provider)) as mock, httpx2.AsyncClient() as http:
        with pytest.raises(httpx2.TransportError):
            await http.post(f"{mock.url}{CHAT}", json=chat_body(stream=True))
        assert mock.stats()["faults"] == 1


async def test_one_connection_serves_many_calls(
    http: httpx2.AsyncClient, quick: MockServer
) -> None:
    for n in range(20):
        answer = await http.post(
            CHAT, json=chat_body(stream=n % 2 == 0), headers={"x-mock-output-tokens": "3"}
        )
        assert answer.status_code == 200
        assert answer.content

    assert quick.stats()["in_flight"] == 0


async def test_one_call_after_another_never_counts_as_two() -> None:
    async with MockServer(MockSettings(QUICK)) as mock, httpx2.AsyncClient() as http:
        for n in range(50):
            await http.post(f"{mock.url}{CHAT}", json=chat_body(stream=n % 2 == 0))
        stats = mock.stats()

    assert (stats["peak_in_flight"], stats["provider_peak_active"]) == (1, 1)
