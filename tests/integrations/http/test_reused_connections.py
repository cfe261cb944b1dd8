"""A provider that closes its connections unannounced: what crosses that is sent once more."""

import asyncio
from typing import Any

import httpx
import httpx2
import pytest

from penstock.core.events import Failed
from tests.integrations.http.rig import BODY, Tape, assert_idle, penstock_with
from tests.listening import listening_apart
from tests.proxy.test_warm_connections import Fickle

pytestmark = pytest.mark.parametrize("library", ["httpx2", "httpx"])
CALLS = 12
"""Of which a budget for retries allows three."""


def check(found: list[int], tape: Tape, upstream: Fickle) -> None:
    assert found == [200] * CALLS
    assert [(event.retryable, event.reused) for event in tape.of(Failed)] == [(True, True)] * (
        CALLS - 1
    )
    assert upstream.connections == CALLS


def test_a_thread_loses_no_call(library: Any) -> None:
    tape = Tape()
    scheduled, seen = penstock_with(tape=tape), []
    with Fickle() as upstream, scheduled.client(library=library) as client:
        url = f"http://127.0.0.1:{upstream.port}/v1/chat/completions"
        told = {"trace": lambda event, _info: seen.append(event)}
        found = [client.post(url, json=BODY, extensions=told).status_code for _ in range(CALLS)]

    check(found, tape, upstream)
    assert_idle(scheduled)
    assert seen.count("http11.receive_response_body.complete") == CALLS


async def test_a_coroutine_loses_no_call(library: Any) -> None:
    tape = Tape()
    scheduled, seen = penstock_with(tape=tape), []

    async def follow(event: str, _info: object) -> None:
        seen.append(event)

    with Fickle() as upstream:
        async with scheduled.async_client(library=library) as client:
            url = f"http://127.0.0.1:{upstream.port}/v1/chat/completions"
            told = {"trace": follow}
            found = [
                (await client.post(url, json=BODY, extensions=told)).status_code
                for _ in range(CALLS)
            ]

    check(found, tape, upstream)
    assert_idle(scheduled)
    assert seen.count("http11.receive_response_body.complete") == CALLS


def test_what_breaks_on_a_fresh_connection_is_the_providers_fault(library: Any) -> None:
    tape = Tape()

    async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    with (
        listening_apart(hang_up) as port,
        penstock_with(tape=tape).client(library=library) as client,
    ):
        with pytest.raises((httpx.TransportError, httpx2.TransportError)):
            client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=BODY)

    assert not any(event.reused for event in tape.of(Failed))
