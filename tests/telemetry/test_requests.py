"""A request is one span with a child for each attempt, and is measured once."""

import asyncio
import json

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from penstock.calls.endpoint import CHAT
from penstock.calls.facts import facts_of
from penstock.calls.spec import RequestSpec
from penstock.core.events import (
    Arrived,
    Cancelled,
    Defer,
    Dispatch,
    RefusalCause,
    Reject,
    Throttled,
    WindowMoved,
)
from penstock.core.model import Request, TokenEstimate
from penstock.errors import Refused
from penstock.wire.usage import Usage
from tests.runtime.window import Window, why
from tests.telemetry.recorder import Recorder, events, facts, seconds
from tests.virtual_loop import run_virtual

BODY = {"model": "m", "messages": [{"role": "user", "content": "the-secret"}], "stream": True}
OPERATION = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "groq",
    "gen_ai.request.model": "m",
    "server.address": "api.groq.com",
    "server.port": 443,
}


def streamed() -> RequestSpec:
    return RequestSpec(
        model="m",
        body=BODY,
        endpoint="chat",
        vendor="openai",
        session="the-secret",
        prompt="the-secret",
        facts=facts_of(CHAT, BODY | {"max_tokens": 60, "n": 2}),
    )


def test_a_completed_request_is_a_span_with_one_attempt_and_its_usage() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with recorder.gate().admit(streamed()) as slot:
            slot.trace_headers("api.groq.com", 443)
            await asyncio.sleep(0.5)
            slot.first_token()
            await asyncio.sleep(1.5)
            slot.settle(Usage(12, 7, cached_tokens=5))

    run_virtual(main())
    span, (attempt,) = recorder.operation, recorder.attempts
    assert (span.name, span.kind, span.status.status_code) == (
        "chat m", SpanKind.CLIENT, StatusCode.UNSET,
    )  # fmt: skip
    assert (attempt.kind, seconds(attempt), seconds(span)) == (SpanKind.CLIENT, 2.0, 2.0)
    assert attempt.parent is not None
    assert attempt.parent.span_id == span.context.span_id
    assert [name for name, _ in events(span)] == ["penstock.dispatch"]
    assert facts(span).items() >= {
        **OPERATION,
        "gen_ai.request.stream": True,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.max_tokens": 60,
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "penstock.id": "run-1",
        "penstock.class": "all",
        "penstock.upstream": "mill",
        "penstock.outcome": "completed",
    }.items()  # fmt: skip
    points = recorder.points()
    assert points["gen_ai.client.operation.duration"] == [(OPERATION, (1, 2.0))]
    assert points["gen_ai.client.operation.time_to_first_chunk"] == [(OPERATION, (1, 0.5))]
    assert points["gen_ai.client.token.usage"] == [
        ({**OPERATION, "gen_ai.token.type": "input"}, (1, 7)),
        ({**OPERATION, "gen_ai.token.type": "output"}, (1, 12)),
    ]


def test_a_retried_request_is_one_operation_with_two_attempts() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with recorder.gate().admit(streamed()) as slot:
            first = slot.trace_headers("a.example", 443)["traceparent"]
            await slot.throttled("rate", 3.0)
            second = slot.trace_headers("b.example", 80)["traceparent"]
            assert first[:35] == second[:35]
            assert first != second
            await asyncio.sleep(1.0)
            slot.settle(Usage(12, 7))

    run_virtual(main())
    refused, passed = recorder.attempts
    assert [name for name, _ in events(recorder.operation)] == [
        "penstock.dispatch", "penstock.retry", "penstock.dispatch",
    ]  # fmt: skip
    assert facts(refused)["error.type"] == "rate"
    assert refused.status.status_code is StatusCode.ERROR
    assert facts(passed) == {
        "penstock.attempt": 2,
        "penstock.upstream": "mill",
        "server.address": "b.example",
        "server.port": 80,
    }
    assert "error.type" not in facts(recorder.operation)
    assert (seconds(recorder.operation), seconds(passed)) == (4.0, 1.0)
    points = recorder.points()
    assert [value for _, value in points["gen_ai.client.operation.duration"]] == [(1, 4.0)]
    assert {labels["penstock.outcome"]: n for labels, n in points["penstock.attempts"]} == {
        "rate": 1, "completed": 1,
    }  # fmt: skip
    assert points["penstock.queue.duration"][0][1] == (1, 0.0)
    assert points["penstock.in_flight"] == [({"penstock.upstream": "mill"}, 0)]
    assert points["penstock.backlog"] == [({"penstock.class": "all"}, 0)]


def test_a_refused_request_names_the_providers_reason_and_counts_as_refused() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with recorder.gate().admit() as slot:
            with pytest.raises(Refused):
                await slot.throttled("quota", 90_000.0)

    run_virtual(main())
    span = recorder.operation
    assert facts(span)["error.type"] == "quota"
    assert span.status.status_code is StatusCode.ERROR
    name, told = events(span)[-1]
    assert (name, told["penstock.reason"], told["penstock.retry_after_s"]) == (
        "penstock.refusal", "upstream", 90_000.0,
    )  # fmt: skip
    refusals = recorder.points()["penstock.refusals"]
    assert refusals == [({"penstock.class": "all", "penstock.reason": "upstream"}, 1)]


def test_a_request_that_expires_in_the_queue_never_had_an_attempt() -> None:
    recorder = Recorder()

    async def main() -> None:
        gate = recorder.gate(Window(0), ttl_s=2.0)
        with pytest.raises(Refused):
            await gate.enter(RequestSpec())

    run_virtual(main())
    assert recorder.attempts == []
    assert facts(recorder.operation)["error.type"] == "penstock_expired"
    points = recorder.points()
    assert points["penstock.backlog"] == [({"penstock.class": "all"}, 0)]
    labels, took = points["gen_ai.client.operation.duration"][0]
    assert (labels["error.type"], took) == ("penstock_expired", (1, 2.0))


def test_an_interrupted_stream_has_an_error_and_no_usage() -> None:
    recorder = Recorder()

    async def main() -> None:
        slot = await recorder.gate().enter(streamed())
        slot.first_token()
        slot.fail(upstream_fault=True)

    run_virtual(main())
    told = facts(recorder.operation)
    assert told["error.type"] == "broken"
    assert not [name for name in told if name.startswith("gen_ai.usage")]
    assert "gen_ai.client.token.usage" not in recorder.points()


@pytest.mark.parametrize(
    ("error", "outcome", "word"),
    [
        (ZeroDivisionError, "failed", "_OTHER"),
        (asyncio.CancelledError, "cancelled", "cancelled"),
    ],
)
def test_other_ends(error: type[BaseException], outcome: str, word: str) -> None:
    recorder = Recorder()

    async def main() -> None:
        with pytest.raises(error):
            async with recorder.gate().admit():
                raise error

    run_virtual(main())
    told = facts(recorder.operation)
    assert (told["penstock.outcome"], told["error.type"]) == (outcome, word)
    assert len(recorder.attempts) == 1
    assert recorder.points()["penstock.in_flight"][0][1] == 0


def test_deferrals_are_events_with_their_cause_and_a_windows_moves_are_seen() -> None:
    recorder = Recorder()
    telemetry, request = recorder.telemetry, Request(7, "batch", 0.0, TokenEstimate(4, 9))
    telemetry.begin("run-7", request, RequestSpec())
    telemetry.event(0.0, Arrived(request))
    telemetry.action(0.0, Defer(request, 2.5, "overload", why(0.0, request)))
    telemetry.action(1.0, WindowMoved("mill", 1.0, 4.0, "probe"))
    assert recorder.points()["penstock.backlog"] == [({"penstock.class": "batch"}, 1)]
    telemetry.action(2.5, Reject(request, "shed", None, why(2.5, request)))
    (name, told), _ = events(recorder.operation)
    assert name == "penstock.defer"
    assert (told["penstock.deferred_s"], told["penstock.reason"]) == (2.5, "overload")
    points = recorder.points()
    assert points["penstock.deferrals"] == [({"penstock.class": "batch"}, 1)]
    assert points["penstock.window"] == [({"penstock.upstream": "mill"}, 4.0)]
    assert points["penstock.backlog"] == [({"penstock.class": "batch"}, 0)]


def test_what_was_cancelled_while_it_waited_waits_no_more() -> None:
    recorder = Recorder()
    telemetry, request = recorder.telemetry, Request(7, "batch", 0.0, TokenEstimate(4, 9))
    telemetry.begin("run-7", request, RequestSpec())
    telemetry.event(0.0, Arrived(request))
    telemetry.action(0.0, Dispatch(request, "mill", why(0.0, request)))
    telemetry.event(1.0, Throttled(7, RefusalCause.RATE, 5.0))
    telemetry.event(2.0, Cancelled(7))
    points = recorder.points()
    assert points["penstock.backlog"] == [({"penstock.class": "batch"}, 0)]
    assert points["penstock.in_flight"] == [({"penstock.upstream": "mill"}, 0)]


def test_no_text_no_session_and_no_key_is_exported() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with recorder.gate().admit(streamed()) as slot:
            slot.refused_with("the-secret")
            with pytest.raises(Refused):
                await slot.throttled("quota", 90_000.0)

    run_virtual(main())
    told = [json.loads(each.to_json()) for each in recorder.spans]
    assert told
    assert "the-secret" not in json.dumps(told) + repr(recorder.points())


def test_what_is_not_sampled_is_measured_and_its_trace_goes_on_unsampled() -> None:
    recorder = Recorder(sampler=ParentBased(ALWAYS_OFF))

    async def main() -> None:
        async with recorder.gate().admit(streamed()) as slot:
            assert slot.trace_headers("a.example", 443)["traceparent"].endswith(("-00", "-02"))
            slot.settle(Usage(12, 7))

    run_virtual(main())
    assert recorder.spans == ()
    points = recorder.points()
    assert points["gen_ai.client.operation.duration"][0][1][0] == 1
    assert points["penstock.attempts"][0][1] == 1
