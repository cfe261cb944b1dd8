"""The sync transports do the same for threads."""

import gc
import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest

from penstock.core.events import Cancelled, Completed, Dispatch, Failed, FirstToken
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    REPLY,
    USAGE,
    Tape,
    assert_idle,
    penstock_with,
    scripted,
    scripted_sync,
    sse,
    token,
)

pytestmark = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
EVENTS = {"content-type": "text/event-stream"}


def test_a_call_is_admitted_and_its_usage_settled(library: Any) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)
    with scripted_sync(library, scheduled, lambda _: library.Response(200, json=REPLY)) as client:
        assert client.post(CHAT, json=BODY).json() == REPLY
        assert client.get("https://provider.example/v1/models").status_code == 200
    assert tape.of(Completed) == [Completed(1, 7, 3, reported=True)]
    assert_idle(scheduled)


def test_threads_and_coroutines_share_the_window(library: Any) -> None:
    tape = Tape()
    scheduled = penstock_with(window=2, tape=tape)

    def provider(_request: Any) -> Any:
        return library.Response(200, json=REPLY)

    with scripted_sync(library, scheduled, provider) as client, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: client.post(CHAT, json=BODY), range(80)))
    assert {r.status_code for r in replies} == {200}
    assert max(d.why.in_flight for d in tape.of(Dispatch)) <= 1
    assert len(tape.of(Completed)) == 80
    assert_idle(scheduled)


def test_a_stream_is_followed_to_its_end(library: Any) -> None:
    tape = Tape()

    def body() -> Iterator[bytes]:
        yield sse(token("a"))
        yield sse(token("b"), USAGE, "[DONE]")

    with (
        scripted_sync(
            library,
            penstock_with(tape=tape),
            lambda _: library.Response(200, headers=EVENTS, content=body()),
        ) as client,
        client.stream("POST", CHAT, json=BODY) as response,
    ):
        assert b"".join(response.iter_raw()).endswith(b"[DONE]\n\n")
    assert tape.of(FirstToken) == [FirstToken(1)]
    assert tape.of(Completed) == [Completed(1, 2, 3, reported=True)]


def test_a_stream_left_early_is_cancelled(library: Any) -> None:
    tape = Tape()

    def body() -> Iterator[bytes]:
        while True:
            yield sse(token("a"))

    with (
        scripted_sync(
            library,
            penstock_with(tape=tape),
            lambda _: library.Response(200, headers=EVENTS, content=body()),
        ) as client,
        client.stream("POST", CHAT, json=BODY) as response,
    ):
        next(response.iter_raw())
    assert tape.of(Cancelled) == [Cancelled(1)]


def test_a_response_that_nobody_closes_gives_its_slot_back(library: Any) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    def body() -> Iterator[bytes]:
        yield sse(token("a"))

    client = scripted_sync(
        library, scheduled, lambda _: library.Response(200, headers=EVENTS, content=body())
    )
    response = client.send(client.build_request("POST", CHAT, json=BODY), stream=True)
    del response
    gc.collect()  # httpx keeps the response and its body in a cycle
    assert tape.of(Cancelled) == [Cancelled(1)]
    assert_idle(scheduled)


def test_retries_are_the_cores(library: Any) -> None:
    answers: list[Any] = [
        library.Response(503, headers={"retry-after-ms": "10"}),
        library.ConnectError("refused"),
        library.Response(200, json=REPLY),
    ]

    def provider(_request: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    scheduled = penstock_with()
    with scripted_sync(library, scheduled, provider) as client:
        assert client.post(CHAT, json=BODY).status_code == 200
    assert answers == []
    assert_idle(scheduled)


def test_the_callers_own_timeout_is_the_callers(library: Any) -> None:
    tape = Tape()

    def provider(_request: Any) -> Any:
        raise library.ReadTimeout("slow")

    with scripted_sync(library, penstock_with(tape=tape), provider) as client:
        with pytest.raises(library.ReadTimeout):
            client.post(CHAT, json=BODY)
    assert tape.of(Failed) == [Failed(1, retryable=False, upstream_fault=True)]


def test_an_answer_that_stays_bad_is_relayed(library: Any) -> None:
    scheduled = penstock_with()
    with scripted_sync(
        library, scheduled, lambda _: library.Response(402, json={"error": {"message": "spent"}})
    ) as client:
        response = client.post(CHAT, json=BODY)
    assert (response.status_code, response.json()["error"]["message"]) == (402, "spent")
    assert_idle(scheduled)


async def test_a_clients_own_proxies_are_scheduled_too(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    scheduled = penstock_with()
    for client in (
        scheduled.client(library=library.__name__),
        scheduled.async_client(library=library.__name__),
    ):
        mounted = [each for each in client._mounts.values() if each is not None]
        kinds = {type(each).__mro__[1].__name__ for each in [client._transport, *mounted]}
        assert mounted
        assert kinds <= {"SyncScheduling", "AsyncScheduling"}


async def test_defaults_are_the_sdks(library: Any) -> None:
    client = scripted(library, penstock_with(), lambda _: library.Response(200))
    assert client.timeout == library.Timeout(600.0, connect=5.0)
    assert client.follow_redirects
    assert scripted(library, penstock_with(), lambda _: None, timeout=3.0).timeout.read == 3.0


@pytest.mark.parametrize("status", [200, 404])
def test_a_whole_answer_can_be_read_raw_by_whoever_streams(library: Any, status: int) -> None:
    packed = gzip.compress(json.dumps(REPLY).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    scheduled = penstock_with()

    def provider(_request: Any) -> Any:
        return library.Response(status, headers=headers, stream=library.ByteStream(packed))

    client = scripted_sync(library, scheduled, provider)
    with client.stream("POST", CHAT, json=BODY) as answer:
        assert b"".join(answer.iter_raw()) == packed
    with client.stream("POST", CHAT, json=BODY) as answer:
        assert json.loads(b"".join(answer.iter_bytes())) == REPLY
    assert client.post(CHAT, json=BODY).json() == REPLY
    assert_idle(scheduled)
