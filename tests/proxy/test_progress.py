"""A caller that waits can be told so, and its SDK takes no notice."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from penstock.proxy import progress
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    HELLO,
    SidecarThread,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)

LONG = {"x-mock-fault": "slow_first_token:60"}
ASK: Any = [{"role": "user", "content": "hi"}]
STREAM = {**HELLO, "stream": True}
SSE, BLANK = {"x-penstock-progress": "sse"}, {"x-penstock-progress": "blank"}


@pytest.fixture
def signs(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All that was said to callers who wait, as it is sent."""
    sent: list[bytes] = []
    piece = progress.Progress._piece

    async def noted(speaker: progress.Progress, data: bytes, *, more: bool = True) -> None:
        await piece(speaker, data, more=more)
        sent.append(data)

    monkeypatch.setattr(progress.Progress, "_piece", noted)
    return sent


@pytest.fixture
def proxy(
    mock: MockServer, monkeypatch: pytest.MonkeyPatch, signs: list[bytes]
) -> Iterator[SidecarThread]:
    """One place, so that the second call waits for the first; signs of life come quickly."""
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    with sidecar(in_front_of(mock.url, window=1)) as running:
        yield running


@pytest.fixture
def taken(proxy: SidecarThread) -> Iterator[socket.socket]:
    """The only place is taken by this call."""
    with connect(proxy.port) as holder:
        holder.sendall(raw_request(headers=LONG))
        eventually(lambda: proxy.snapshot().in_flight == 1)
        yield holder


@contextlib.contextmanager
def once_it_waits(signs: list[bytes], act: Callable[[], None]) -> Iterator[None]:
    """Act once a call has waited for some signs of life, however late a busy machine sends it."""

    def wait() -> None:
        eventually(lambda: len(signs) >= 3)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


@pytest.fixture
def busy(taken: socket.socket, signs: list[bytes]) -> Iterator[None]:
    """The only place is taken until another call has waited for it."""
    with once_it_waits(signs, taken.close):
        yield


@pytest.mark.usefixtures("busy")
def test_a_stream_that_waits_says_so_in_comments(proxy: SidecarThread) -> None:
    reply = call(proxy.port, body=STREAM, headers=SSE)

    first = reply.body.split(b"\n\n")[0].decode()
    assert reply.headers["content-type"] == "text/event-stream"
    assert first.startswith(": penstock id=")
    assert " waiting cause=window position=1 estimate_s=" in first
    assert b": penstock id=" in reply.body
    assert b"decision=dispatched" in reply.body
    assert reply.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.usefixtures("busy")
def test_sdks_pass_the_comments_over(proxy: SidecarThread) -> None:
    vendor = openai.OpenAI(base_url=proxy.url + "/v1", api_key="k", max_retries=0)
    stream = vendor.chat.completions.create(
        model="m", messages=ASK, stream=True, extra_headers={**SSE, "x-mock-output-tokens": "7"}
    )
    text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    other = anthropic.Anthropic(base_url=proxy.url, api_key="k", max_retries=0)
    with other.messages.stream(model="m", max_tokens=9, messages=ASK, extra_headers=SSE) as spoken:
        answer = spoken.get_final_text()

    assert len(text.split()) == 7
    assert answer


@pytest.mark.usefixtures("busy")
def test_a_whole_reply_that_waits_begins_with_blank_lines(proxy: SidecarThread) -> None:
    reply = call(proxy.port, headers=BLANK)

    assert reply.status == 200
    assert reply.body.startswith(b"\n")
    assert json.loads(reply.body)["choices"]


@pytest.mark.usefixtures("taken")
def test_a_refusal_after_a_sign_of_life_is_an_error_in_the_stream(
    proxy: SidecarThread, signs: list[bytes]
) -> None:
    vendor = openai.OpenAI(base_url=proxy.url + "/v1", api_key="k", max_retries=0)
    hint = {"x-penstock-deadline-ms": "100000"}

    with (
        once_it_waits(signs, proxy.begin_stop),
        pytest.raises(openai.APIError, match="draining"),
    ):
        list(
            vendor.chat.completions.create(
                model="m", messages=ASK, stream=True, extra_headers={**SSE, **hint}
            )
        )


def test_who_need_not_wait_gets_the_answer_as_ever(
    mock: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 60.0)  # a machine may stall for the usual two seconds
    with sidecar(in_front_of(mock.url, window=1)) as proxy:
        reply = call(proxy.port, body=STREAM, headers={**SSE, "x-mock-output-tokens": "3"})

    assert reply.headers["x-penstock-decision"] == "dispatched"


@pytest.mark.parametrize(
    ("body", "word"), [(HELLO, "sse"), (STREAM, "blank"), (HELLO, "102"), (STREAM, "")]
)
def test_a_word_that_does_not_fit_the_reply_is_a_400(
    proxy: SidecarThread, body: Any, word: str
) -> None:
    reply = call(proxy.port, body=body, headers={"x-penstock-progress": word})

    assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_header")
