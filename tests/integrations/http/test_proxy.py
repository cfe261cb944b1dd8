"""Calls go through the user's HTTP proxy, named by option or by environment, and are scheduled."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import pytest

from penstock.core.events import Completed
from tests.integrations.http.rig import BODY, Tape, assert_idle, penstock_with
from tests.listening import listening

pytestmark = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
URL = "http://provider.invalid/v1/chat/completions"
"""A host that nobody can reach but through the proxy."""
ANSWER = b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class ForwardProxy:
    """Answers for the provider itself, and notes what it was asked for."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
        await reader.readexactly(int(length))
        self.lines.append(head.split(b"\r\n")[0])
        writer.write(HEAD % len(ANSWER) + ANSWER)
        await writer.drain()


@pytest.fixture
async def proxy() -> AsyncIterator[ForwardProxy]:
    made = ForwardProxy()
    async with listening(made.serve) as port:
        made.url = f"http://127.0.0.1:{port}"
        yield made


@pytest.mark.parametrize("named_by", ["option", "environment"])
async def test_async_and_sync_calls_go_through_the_proxy(
    library: Any, named_by: str, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"proxy": proxy.url} if named_by == "option" else {}
    if named_by == "environment":
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    async with scheduled.async_client(library=library.__name__, **options) as client:
        assert (await client.post(URL, json=BODY)).status_code == 200
    with scheduled.client(library=library.__name__, **options) as client:
        assert (await asyncio.to_thread(client.post, URL, json=BODY)).status_code == 200

    assert proxy.lines == [b"POST " + URL.encode() + b" HTTP/1.1"] * 2
    assert [each.output_tokens for each in tape.of(Completed)] == [7, 7]
    assert list(scheduled.snapshot()) == ["provider.invalid"]
    assert_idle(scheduled)
