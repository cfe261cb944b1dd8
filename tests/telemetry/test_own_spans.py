"""Spans of our own making say what the SDK's would, to the last attribute, and cost a tenth."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)

from penstock.calls.spec import RequestSpec
from penstock.core.events import Cancelled
from penstock.core.model import Request, TokenEstimate
from penstock.telemetry.otlp import OtlpSpans, sender_of
from penstock.telemetry.own_spans import EVENTS_AT_MOST, OwnSpan, OwnSpans
from penstock.telemetry.pipeline import Pipeline
from penstock.telemetry.spans import W3C, ApiSpans, SpanSource
from tests.telemetry.collector import collecting

RESOURCE = Resource({"service.name": "mill"})
ABOVE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=kept,other=too",
}
Story = Callable[[SpanSource], None]


class Counted(IdGenerator):
    """Names spans and traces 1, 2, 3."""

    def __init__(self) -> None:
        self.last = 0

    def generate_span_id(self) -> int:
        self.last += 1
        return self.last

    generate_trace_id = generate_span_id


class Marking(Sampler):
    """Samples all, and marks what it has sampled."""

    MARKS: ClassVar[dict[str, Any]] = {
        "marked": True,
        "rules": ("a", "b"),
        "shares": [0.5, 1.0],
        "counts": (1, -2),
        "flags": (True, False),
        "none": (),
        "nothing": None,
        "bytes": b"\x00\xff",
        "nested": {"a": ("b", None), "c": {"d": 1}},
    }

    def should_sample(self, *args: Any, **_more: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE, {**(args[4] or {}), **self.MARKS})

    def get_description(self) -> str:
        return "marking"


def theirs(story: Story, sampler: Sampler) -> ExportTraceServiceRequest:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider(sampler, RESOURCE, id_generator=Counted(), shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    story(ApiSpans(tracers))
    found: ExportTraceServiceRequest = encode_spans(exporter.get_finished_spans())
    return found


def ours(
    story: Story, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> ExportTraceServiceRequest:
    sent: list[bytes] = []
    exporter = OTLPSpanExporter()

    def send(body: bytes) -> Yes:
        sent.append(body)
        return Yes()

    monkeypatch.setattr(exporter._client, "export", send)
    ended: list[OwnSpan] = []
    tracers = TracerProvider(sampler, RESOURCE, id_generator=Counted(), shutdown_on_exit=False)
    story(OwnSpans(tracers, ended.append))
    if not ended:
        return ExportTraceServiceRequest()
    assert OtlpSpans(exporter, RESOURCE).export(ended) is SpanExportResult.SUCCESS
    found = ExportTraceServiceRequest()
    found.ParseFromString(sent[0])
    return found


class Yes:
    success = True


def sorted_(groups: Sequence[ResourceSpans]) -> list[ResourceSpans]:
    """Return them with each span's attributes by name."""
    for group in groups:
        for scope in group.scope_spans:
            for span in scope.spans:
                span.attributes.sort(key=lambda each: each.key)
    return list(groups)


def completed(spans: SpanSource) -> None:
    span = spans.operation("chat m", {"gen_ai.operation.name": "chat", "server.port": 443}, 10**18)
    span.event(
        "penstock.dispatch", {"penstock.queued_s": 0.25, "penstock.rung": "short"}, 10**18 + 5
    )
    attempt = span.attempt({"penstock.attempt": 1}, 10**18 + 5)
    attempt.tell({"server.address": "api.example"})
    attempt.end(10**18 + 9, failed=False)
    span.tell({"gen_ai.usage.output_tokens": 300, "gen_ai.request.stream": True, "share": 0.5})
    span.end(10**18 + 10, failed=False)


def failed(spans: SpanSource) -> None:
    span = spans.operation("chat", {}, 10**18)
    attempt = span.attempt({"penstock.attempt": 1}, 10**18)
    attempt.tell({"error.type": "rate"})
    attempt.end(10**18 + 9, failed=True)
    span.tell({"penstock.outcome": "failed"})
    span.end(10**18 + 10, failed=True)


def odd_values(spans: SpanSource) -> None:
    span = spans.operation("模型 " * 100, {"long": "x" * 70_000, "empty": "", "no": False}, 1)
    span.tell({"negative": -3, "largest": 2**63 - 1, "one": 1, "true": True, "unit": 1.0})
    span.tell({"longer": "y" * 300, "endless": float("inf")})
    span.end(2, failed=False)


@pytest.mark.parametrize("story", [completed, failed, odd_values])
@pytest.mark.parametrize("above", [{}, ABOVE, {"traceparent": ABOVE["traceparent"][:-1] + "0"}])
@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF, ParentBased(ALWAYS_ON), Marking()])
def test_they_say_what_the_sdks_say(
    story: Story, above: dict[str, str], sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = attach(W3C.extract(above, context=Context()))
    try:
        expected, found = theirs(story, sampler), ours(story, sampler, monkeypatch)
    finally:
        detach(token)
    if isinstance(sampler, Marking):  # the SDK's asks it about each attempt too
        for span in expected.resource_spans[0].scope_spans[0].spans:
            if span.name == "penstock.attempt":
                kept = [each for each in span.attributes if each.key not in Marking.MARKS]
                span.ClearField("attributes")
                span.attributes.extend(kept)
    assert sorted_(found.resource_spans) == sorted_(expected.resource_spans)


@pytest.mark.parametrize("above", [{}, ABOVE])
@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF])
def test_they_carry_what_the_sdks_carry(above: dict[str, str], sampler: Sampler) -> None:
    found: list[dict[str, str]] = []

    def story(spans: SpanSource) -> None:
        span = spans.operation("chat", {}, 1)
        found.append(span.carried())
        if span.is_recording:
            found.append(span.attempt({}, 2).carried())

    def begin(make: Callable[[TracerProvider], SpanSource]) -> list[dict[str, str]]:
        found.clear()
        story(make(TracerProvider(sampler, id_generator=Counted(), shutdown_on_exit=False)))
        return list(found)

    token = attach(W3C.extract(above, context=Context()))
    try:
        assert begin(lambda tracers: OwnSpans(tracers, print)) == begin(ApiSpans)
    finally:
        detach(token)


def test_of_a_request_that_is_deferred_for_ever_the_latest_events_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def story(spans: SpanSource) -> None:
        span = spans.operation("chat", {}, 1)
        for number in range(EVENTS_AT_MOST + 3):
            span.event("penstock.defer", {"penstock.deferred_s": 1.0}, number + 1)
        span.end(1000, failed=False)

    assert sorted_(ours(story, ALWAYS_ON, monkeypatch).resource_spans) == sorted_(
        theirs(story, ALWAYS_ON).resource_spans
    )


def test_a_text_that_is_no_unicode_does_not_cost_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def story(spans: SpanSource) -> None:
        spans.operation("chat \ud800", {"model": "\ud800"}, 1).end(2, failed=False)

    ((span,),) = [
        scope.spans
        for group in ours(story, ALWAYS_ON, monkeypatch).resource_spans
        for scope in group.scope_spans
    ]
    assert (span.name, span.attributes[0].value.string_value) == ("chat ?", "?")


def test_spans_are_the_sdks_where_its_exporter_has_no_way_in_for_ours() -> None:
    assert sender_of(OTLPSpanExporter()) is not None  # else the pipeline is as slow as the SDK
    assert sender_of(ConsoleSpanExporter()) is None


@pytest.mark.parametrize(
    ("asked", "env", "expected"),
    [
        (["otlp"], {}, None),
        (["otlp"], {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2"}, 2),
        (["otlp", "console"], {}, None),
    ],
)
def test_a_pipelines_spans_are_cut_only_as_the_environment_says(
    asked: list[str],
    env: dict[str, str],
    expected: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        pipeline = Pipeline({"traces": asked}, "mill")
        request = Request(7, "batch", 0.0, TokenEstimate(4, 9))
        pipeline.telemetry.begin("run-7", request, RequestSpec(endpoint="chat"))
        pipeline.telemetry.event(1.0, Cancelled(7))
        pipeline.close()
    (span,) = collector.named("chat")
    assert len(span.attributes) == expected or (expected is None and len(span.attributes) > 6)
