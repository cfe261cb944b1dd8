"""The async transports schedule, follow the reply, retry by the core and leak nothing."""

import asyncio
import gc
import gzip
import json
import sys
from collections.abc import AsyncIterator
from types import FrameType
from typing import Any

import httpx
import httpx2
import pytest

import penstock
from penstock.core.events import (
    Cancelled,
    Completed,
    Dispatch,
    Failed,
    FirstToken,
    LimitsSeen,
    RefusalCause,
    Throttled,
)
from penstock.errors import Refused
from tests.conftest import LONG
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    REPLY,
    USAGE,
    Tape,
    assert_idle,
    only,
    penstock_with,
    scripted,
    sse,
    token,
)

pytestmark = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])


async def test_a_call_is_admitted_and_its_usage_settled(library: Any) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)
    async with scripted(library, scheduled, lambda _: library.Response(200, json=REPLY)) as client:
        response = await client.post(CHAT, json=BODY)

    assert response.json() == REPLY
    assert response.headers["x-penstock-id"].endswith("-1")
    assert tape.of(Completed) == [Completed(1, 7, 3, reported=True)]
    (dispatch,) = tape.of(Dispatch)
    assert (dispatch.request.model, dispatch.request.estimate.p90_tokens) == ("m", 50)
    assert_idle(scheduled)


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "https://provider.example/v1/models"),
        ("POST", "https://provider.example/v1/threads/thread_1/messages"),
        ("POST", "https://elsewhere.example/form"),
    ],
)
async def test_what_is_no_model_call_passes_untouched(library: Any, method: str, url: str) -> None:
    tape = Tape()
    async with scripted(
        library, penstock_with(tape=tape), lambda _: library.Response(204)
    ) as client:
        assert (await client.request(method, url)).status_code == 204
    assert tape.events == []


async def test_the_window_holds_and_the_rest_waits(library: Any) -> None:
    flying = 0
    most = 0

    async def provider(request: Any) -> Any:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.002)
        flying -= 1
        return library.Response(200, json=REPLY)

    scheduled = penstock_with(window=2)
    async with scripted(library, scheduled, provider) as client:
        replies = await asyncio.gather(*(client.post(CHAT, json=BODY) for _ in range(12)))
    assert {r.status_code for r in replies} == {200}
    assert most == 2
    assert_idle(scheduled)


async def test_a_stream_holds_its_slot_until_its_end_and_tells_the_first_token(
    library: Any,
) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    async def body() -> AsyncIterator[bytes]:
        yield sse(token("a"))
        assert only(scheduled).in_flight == 1
        yield sse(token("b"), USAGE, "[DONE]")

    headers = {"content-type": "text/event-stream; charset=utf-8"}
    async with (
        scripted(
            library, scheduled, lambda _: library.Response(200, headers=headers, content=body())
        ) as client,
        client.stream("POST", CHAT, json={**BODY, "stream": True}) as response,
    ):
        raw = b"".join([chunk async for chunk in response.aiter_raw()])

    assert raw == sse(token("a")) + sse(token("b"), USAGE, "[DONE]")
    assert tape.of(FirstToken) == [FirstToken(1)]
    assert tape.of(Completed) == [Completed(1, 2, 3, reported=True)]
    assert_idle(scheduled)


async def test_a_stream_that_stops_before_its_end_passes_and_speaks_against_the_upstream(
    library: Any,
) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)
    cut = sse(token("a"), USAGE)
    headers = {"content-type": "text/event-stream"}
    async with (
        scripted(
            library, scheduled, lambda _: library.Response(200, headers=headers, content=cut)
        ) as client,
        client.stream("POST", CHAT, json={**BODY, "stream": True}) as response,
    ):
        assert b"".join([chunk async for chunk in response.aiter_raw()]) == cut
    assert [event.upstream_fault for event in tape.of(Failed)] == [True]
    assert tape.of(Completed) == []
    assert_idle(scheduled)


async def test_a_stream_left_at_its_end_mark_is_complete_not_cancelled(library: Any) -> None:
    tape = Tape()

    async def body() -> AsyncIterator[bytes]:
        yield sse(token("a"), USAGE, "[DONE]")
        yield b"\n"

    headers = {"content-type": "text/event-stream"}
    async with (
        scripted(
            library,
            penstock_with(tape=tape),
            lambda _: library.Response(200, headers=headers, content=body()),
        ) as client,
        client.stream("POST", CHAT, json=BODY) as response,
    ):
        async for _ in response.aiter_raw():
            break
        # LiteLLM leaves it so, and closes nothing: the slot must not wait for that.
        assert tape.of(Completed) == [Completed(1, 2, 3, reported=True)]
    assert tape.of(Cancelled) == []


async def test_a_wait_until_a_date_is_by_the_providers_own_clock(library: Any) -> None:
    """This machine's may be hours behind: its call would be given up as one of a spent account."""
    now = {"date": "Mon, 23 Nov 2099 12:00:00 GMT", "retry-after": "Mon, 23 Nov 2099 12:00:00 GMT"}
    refused = library.Response(429, headers=now, json={"error": {"message": "slow down"}})
    answers = iter([refused, library.Response(200, json=REPLY)])
    async with scripted(library, penstock_with(), lambda _: next(answers)) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_a_stream_left_early_is_cancelled(library: Any) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield sse(token("a"))

    headers = {"content-type": "text/event-stream"}
    async with (
        scripted(
            library, scheduled, lambda _: library.Response(200, headers=headers, content=body())
        ) as client,
        client.stream("POST", CHAT, json=BODY) as response,
    ):
        async for _ in response.aiter_raw():
            break
    assert tape.of(Cancelled) == [Cancelled(1)]
    assert_idle(scheduled)


async def test_a_stream_that_breaks_speaks_against_the_upstream(library: Any) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    async def body() -> AsyncIterator[bytes]:
        yield sse(token("a"))
        raise library.ReadError("reset by peer")

    headers = {"content-type": "text/event-stream"}
    async with scripted(
        library, scheduled, lambda _: library.Response(200, headers=headers, content=body())
    ) as client:
        with pytest.raises(library.ReadError):
            await client.post(CHAT, json=BODY)
    assert tape.of(Failed) == [Failed(1, retryable=False, upstream_fault=True)]
    assert_idle(scheduled)


@pytest.mark.parametrize("kind", ["json", "events"])
async def test_a_compressed_reply_is_read_too(library: Any, kind: str) -> None:
    tape = Tape()
    plain = json.dumps(REPLY).encode() if kind == "json" else sse(token("x"), USAGE, "[DONE]")
    media = "application/json" if kind == "json" else "text/event-stream"
    headers = {"content-encoding": "gzip", "content-type": media}
    async with scripted(
        library,
        penstock_with(tape=tape),
        lambda _: library.Response(
            200, headers=headers, stream=library.ByteStream(gzip.compress(plain))
        ),
    ) as client:
        assert (await client.post(CHAT, json=BODY)).content == plain
    (completed,) = tape.of(Completed)
    assert (completed.prompt_tokens, completed.reported) == (3, True)


async def test_a_refused_attempt_goes_again_when_the_provider_wants_it(library: Any) -> None:
    tape = Tape()
    answers = [
        library.Response(429, headers={"retry-after-ms": "20"}),
        library.Response(200, json=REPLY),
    ]
    scheduled = penstock_with(tape=tape)
    async with scripted(library, scheduled, lambda _: answers.pop(0)) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    (throttled,) = tape.of(Throttled)
    assert (throttled.cause, throttled.retry_after_s) == (RefusalCause.RATE, 0.02)
    assert len(tape.of(Dispatch)) == 2
    assert_idle(scheduled)


async def test_a_spent_account_is_relayed_and_nobody_sleeps_for_days(library: Any) -> None:
    spent = {"error": {"code": "insufficient_quota", "message": "spent"}}
    scheduled = penstock_with()
    headers = {"retry-after": "259200"}
    async with scripted(
        library, scheduled, lambda _: library.Response(429, headers=headers, json=spent)
    ) as client:
        response = await client.post(CHAT, json=BODY)
    assert response.status_code == 429
    assert response.json() == spent
    assert response.headers["x-should-retry"] == "false"
    assert_idle(scheduled)


async def test_the_callers_own_mistake_is_relayed_at_once(library: Any) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)
    async with scripted(
        library, scheduled, lambda _: library.Response(400, json={"error": {"message": "bad"}})
    ) as client:
        response = await client.post(CHAT, json=BODY)
    assert (response.status_code, response.json()) == (400, {"error": {"message": "bad"}})
    assert tape.of(Failed) == [Failed(1, retryable=False, upstream_fault=False)]
    assert_idle(scheduled)


async def test_a_connection_that_could_not_be_made_is_tried_again(library: Any) -> None:
    tries = 0

    def provider(request: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise library.ConnectError("refused")
        return library.Response(200, json=REPLY)

    scheduled = penstock_with()
    async with scripted(library, scheduled, provider) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    assert tries == 2
    assert_idle(scheduled)


async def test_the_callers_own_timeout_is_the_callers(library: Any) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)

    def provider(request: Any) -> Any:
        raise library.ReadTimeout("slow")

    async with scripted(library, scheduled, provider) as client:
        with pytest.raises(library.ReadTimeout):
            await client.post(CHAT, json=BODY)
    assert tape.of(Failed) == [Failed(1, retryable=False, upstream_fault=True)]
    assert_idle(scheduled)


async def test_stated_limits_reach_the_scheduler(library: Any) -> None:
    tape = Tape()
    headers = {"x-ratelimit-limit-requests": "600"}
    async with scripted(
        library,
        penstock_with(tape=tape),
        lambda _: library.Response(200, headers=headers, json=REPLY),
    ) as client:
        await client.post(CHAT, json=BODY)
    assert tape.of(LimitsSeen) == [LimitsSeen("provider.example", limit_requests=600.0, model="m")]


async def test_a_block_sets_what_its_calls_ask_for_and_headers_win(library: Any) -> None:
    tape = Tape()
    sent: list[Any] = []

    def provider(request: Any) -> Any:
        sent.append(request)
        return library.Response(200, json=REPLY)

    async with scripted(library, penstock_with(tape=tape), provider) as client:
        with penstock.request(class_="batch", deadline_s=30, tenant="reports"):
            await client.post(CHAT, json=BODY)
            await client.post(CHAT, json=BODY, headers={"x-penstock-class": "interactive"})
        await client.post(CHAT, json=BODY)

    first, second, third = (d.request for d in tape.of(Dispatch))
    assert (first.traffic_class, first.tenant) == ("batch", "reports")
    assert first.deadline - first.arrived_at == pytest.approx(30)
    assert (second.traffic_class, second.tenant) == ("interactive", "reports")
    assert (third.traffic_class, third.tenant) == ("interactive", "")
    assert not any(name.startswith("x-penstock") for r in sent for name in r.headers)


async def test_no_provider_gets_our_headers_and_what_is_no_hint_is_named(library: Any) -> None:
    sent: list[Any] = []

    def provider(request: Any) -> Any:
        sent.append(request)
        return library.Response(200, json=REPLY)

    async with scripted(library, penstock_with(), provider) as client:
        with penstock.request(tenant="reports"):
            said = await client.post(CHAT, json=BODY, headers={"X-Penstock-Tenat": "acme"})
        expired = await client.post(
            CHAT, json=BODY, headers={"x-penstock-deadline-ms": "0.001", "x-penstock-foo": "1"}
        )

        for_sidecars = {"x-penstock-safe-to-repeat": "true", "x-penstock-progress": "sse"}
        await client.post(CHAT, json=BODY, headers=for_sidecars)
        await client.get("https://api.openai.com/v1/models", headers={"x-penstock-class": "batch"})

    assert len(sent) == 3
    named = "x-penstock-tenat (did you mean x-penstock-tenant?)"
    assert said.headers["x-penstock-ignored"] == named
    assert expired.headers["x-penstock-ignored"] == "x-penstock-foo"
    assert not any(name.startswith("x-penstock") for r in sent for name in r.headers)


async def test_a_callers_word_on_length_goes_before_what_is_guessed(library: Any) -> None:
    tape = Tape()
    sent: list[Any] = []

    def provider(request: Any) -> Any:
        sent.append(request)
        return library.Response(200, json=REPLY)

    short = {**BODY, "max_tokens": 10}
    async with scripted(library, penstock_with(tape=tape), provider) as client:
        with penstock.request(tokens=(20, 45)):
            await client.post(CHAT, json=BODY)
            await client.post(CHAT, json=BODY, headers={"x-penstock-tokens": "30"})
            await client.post(CHAT, json=short)
        await client.post(CHAT, json=BODY)

    said = [d.request.estimate for d in tape.of(Dispatch)]
    assert said[:3] == [
        penstock.TokenEstimate(20, 45, "caller"),
        penstock.TokenEstimate(30, 30, "caller"),
        penstock.TokenEstimate(10, 10, "caller"),  # no reply is longer than its call allows
    ]
    assert said[3].source == "max_tokens"
    assert not any(name.startswith("x-penstock") for r in sent for name in r.headers)


async def test_waiting_counts_against_the_deadline_not_the_read_timeout(library: Any) -> None:
    async def provider(request: Any) -> Any:
        await asyncio.sleep(0.05)
        return library.Response(200, json=REPLY)

    scheduled = penstock_with(window=1)
    async with scripted(library, scheduled, provider, timeout=0.08) as client:
        replies = await asyncio.gather(*(client.post(CHAT, json=BODY) for _ in range(4)))
        assert [r.status_code for r in replies] == [200] * 4  # the last waited 0.15 s

        first = asyncio.create_task(client.post(CHAT, json=BODY))
        await asyncio.sleep(0)
        hurried = await client.post(CHAT, json=BODY, headers={"x-penstock-deadline-ms": "10"})
        await first
    assert hurried.status_code == 504
    error = hurried.json()["error"]
    assert (error["code"], error["penstock"]["reason"]) == ("penstock_expired", "expired")
    with pytest.raises(library.HTTPStatusError) as raised:
        hurried.raise_for_status()
    refused = penstock.refusal_of(raised.value)
    assert isinstance(refused, Refused)
    assert refused.reason == "expired"
    assert_idle(scheduled)


async def test_an_unknown_class_is_the_callers_mistake(library: Any) -> None:
    async with scripted(
        library, penstock_with(), lambda _: library.Response(200, json=REPLY)
    ) as client:
        with pytest.raises(ValueError, match="known are interactive, batch"):
            await client.post(CHAT, json=BODY, headers={"x-penstock-class": "urgent"})


def test_another_loop_than_asyncios_is_named_as_the_cause(library: Any) -> None:
    """As trio would drive it: steps of a coroutine, with no loop of asyncio's around."""
    scheduled = penstock_with()
    client = scripted(library, scheduled, lambda _: library.Response(200, json=REPLY))
    with pytest.raises(RuntimeError, match=r"no asyncio event loop .* is this trio\?"):
        client.post(CHAT, json=BODY).send(None)
    assert_idle(scheduled)


async def test_each_provider_has_its_own_scheduler(library: Any) -> None:
    scheduled = penstock_with()
    async with scripted(library, scheduled, lambda _: library.Response(200, json=REPLY)) as client:
        await client.post(CHAT, json=BODY)
        await client.post("https://other.example:8443/v1/messages", json=BODY)
    assert sorted(scheduled.snapshot()) == ["other.example:8443", "provider.example"]


async def test_thousands_of_cancelled_calls_leak_nothing(library: Any) -> None:
    """Cancelled while queued, at the dispatch, in the provider and in the body."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield sse(token("x"))
            await asyncio.sleep(0)

    async def provider(request: Any) -> Any:
        await asyncio.sleep(0)
        headers = {"content-type": "text/event-stream"}
        return library.Response(200, headers=headers, content=body())

    scheduled = penstock_with(window=3)
    client = scripted(library, scheduled, provider)
    before = len(asyncio.all_tasks())
    content = json.dumps(BODY).encode()
    for turn in range(500 if LONG else 100):
        calls = [asyncio.create_task(client.post(CHAT, content=content)) for _ in range(20)]
        for _ in range(turn % 12):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert len(asyncio.all_tasks()) == before
    assert scheduled.outlet("provider.example").driver.in_hand == 0
    assert_idle(scheduled)
    assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_a_header_of_a_reply_costs_few_calls_however_many_there_are(library: Any) -> None:
    """OpenAI's replies have 21, and building the library's own headers anew takes 9 calls each."""

    async def calls(client: Any) -> int:
        count = 0

        def counted(frame: FrameType, event: str, arg: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        for _ in range(3):
            await client.post(CHAT, json=BODY)
        gc.disable()  # what the collector finalises of other tests is no call of this one
        sys.setprofile(counted)
        await client.post(CHAT, json=BODY)
        sys.setprofile(None)
        gc.enable()
        return count

    async def added(headers: int) -> int:
        """Return what a call takes with penstock beyond what it takes without."""
        said = {f"x-header-{number}": "word" for number in range(headers)}

        def script(request: Any) -> Any:
            return library.Response(200, json=REPLY, headers=said)

        async with (
            library.AsyncClient(transport=library.MockTransport(script)) as plain,
            scripted(library, penstock_with(), script) as scheduled,
        ):
            return await calls(scheduled) - await calls(plain)

    assert await added(100) - await added(0) <= 2 * 100
