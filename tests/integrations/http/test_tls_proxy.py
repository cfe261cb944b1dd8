"""TLS to the provider, through a proxy that tunnels: calls are scheduled as on a bare line."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import httpx2
import openai
import pytest

from penstock.core.events import Completed
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.integrations.http.rig import BODY, Tape, assert_idle, penstock_with
from tests.integrations.http.tunnel import HOST, Tunnels, trusting

URL = f"https://{HOST}/v1/chat/completions"
HEADERS = {"x-mock-output-tokens": "6"}
STREAMED: dict[str, Any] = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
CONNECT = f"CONNECT {HOST}:443 HTTP/1.1"
libraries = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
namings = pytest.mark.parametrize("named_by", ["option", "environment"])


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    provider = {"model": "slots", "slots": 8, "tokens_per_s": 2000.0, "ttft_s": 0.005}
    with MockServer(MockSettings(provider=provider)) as server:
        yield server


@pytest.fixture
async def tunnels(mock: MockServer) -> AsyncIterator[Tunnels]:
    async with Tunnels(mock.port).running() as made:
        yield made


def options(named_by: str, tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    if named_by == "option":
        return {"proxy": tunnels.url, "verify": trusting()}
    monkeypatch.setenv("HTTPS_PROXY", tunnels.url)
    return {"verify": trusting()}


@libraries
@namings
async def test_async_calls_share_a_tunnel_and_are_scheduled(
    library: Any, named_by: str, tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)
    words = options(named_by, tunnels, monkeypatch)
    async with scheduled.async_client(library=library.__name__, **words) as client:
        reply = await client.post(URL, json=BODY, headers=HEADERS)
        assert reply.json()["usage"]["completion_tokens"] == 6
        async with client.stream("POST", URL, json=STREAMED, headers=HEADERS) as streamed:
            assert "data: [DONE]" in [line async for line in streamed.aiter_lines()]

    assert tunnels.asked == [CONNECT]  # the second call went through the first one's tunnel
    assert [each.output_tokens for each in tape.of(Completed)] == [6, 6]
    assert list(scheduled.snapshot()) == [HOST]
    assert_idle(scheduled)


@libraries
@namings
async def test_sync_calls_share_a_tunnel_and_are_scheduled(
    library: Any, named_by: str, tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)
    words = options(named_by, tunnels, monkeypatch)

    def work() -> None:
        with scheduled.client(library=library.__name__, **words) as client:
            reply = client.post(URL, json=BODY, headers=HEADERS)
            assert reply.json()["usage"]["completion_tokens"] == 6
            with client.stream("POST", URL, json=STREAMED, headers=HEADERS) as streamed:
                assert "data: [DONE]" in list(streamed.iter_lines())

    await asyncio.to_thread(work)

    assert tunnels.asked == [CONNECT]
    assert [each.output_tokens for each in tape.of(Completed)] == [6, 6]
    assert_idle(scheduled)


@libraries
async def test_the_window_holds_through_tunnels_too(library: Any, tunnels: Tunnels) -> None:
    scheduled = penstock_with(window=2)
    most = 0
    watching = threading.Event()

    async with scheduled.async_client(
        library=library.__name__, proxy=tunnels.url, verify=trusting()
    ) as client:

        async def watch() -> None:
            nonlocal most
            while not watching.is_set():
                most = max([most, *(s.in_flight for s in scheduled.snapshot().values())])
                await asyncio.sleep(0.001)

        watcher = asyncio.create_task(watch())
        calls = (client.post(URL, json=BODY, headers=HEADERS) for _ in range(12))
        assert [r.status_code for r in await asyncio.gather(*calls)] == [200] * 12
        watching.set()
        await watcher

    assert most == 2
    assert len(tunnels.asked) < 12
    assert_idle(scheduled)


async def test_the_openai_sdk_streams_through_the_tunnel(tunnels: Tunnels) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)
    http_client = scheduled.async_client(
        library="httpx2", proxy=tunnels.url.replace("//", "//me:word@"), verify=trusting()
    )
    async with openai.AsyncOpenAI(
        base_url=f"https://{HOST}/v1", api_key="any", http_client=http_client
    ) as client:
        stream: Any = await client.chat.completions.create(**STREAMED, extra_headers=HEADERS)
        chunks = [chunk async for chunk in stream]

    assert chunks[-1].usage.completion_tokens == 6
    assert tunnels.credentials == ["Basic bWU6d29yZA=="]
    assert [each.output_tokens for each in tape.of(Completed)] == [6]
    assert_idle(scheduled)


@libraries
async def test_a_proxy_that_refuses_is_said_at_once_and_holds_nothing(
    library: Any, tunnels: Tunnels
) -> None:
    tunnels.refuses_with = "407 Proxy Authentication Required"
    scheduled = penstock_with()
    async with scheduled.async_client(
        library=library.__name__, proxy=tunnels.url, verify=trusting()
    ) as client:
        with pytest.raises(library.ProxyError, match="407"):
            await client.post(URL, json=BODY)

    assert tunnels.asked == [CONNECT]
    assert_idle(scheduled)


@libraries
async def test_a_certificate_that_nobody_vouches_for_is_the_callers_error(
    library: Any, tunnels: Tunnels
) -> None:
    scheduled = penstock_with()
    async with scheduled.async_client(
        library=library.__name__, proxy=tunnels.url, verify=ssl.create_default_context()
    ) as client:
        with pytest.raises(library.ConnectError, match="certificate verify failed"):
            await client.post(URL, json=BODY)

    assert tunnels.asked == [CONNECT]  # it would not be trusted the next time either
    assert_idle(scheduled)
