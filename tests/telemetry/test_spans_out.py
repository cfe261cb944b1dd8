"""Spans that do not fit are dropped and counted; nobody waits for a collector."""

import threading
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from penstock.telemetry.spans_out import BoundedSpans


class Stuck(SpanExporter):
    """An exporter whose collector does not answer until it is let go."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.go = threading.Event()
        self.result = result
        self.sent = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        assert self.go.wait(60)
        self.sent += len(spans)
        return self.result

    def shutdown(self) -> None:
        self.go.set()


def test_a_stuck_collector_costs_spans_and_no_time() -> None:
    exporter = Stuck()
    spans = BoundedSpans(exporter, 10)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(spans)
    tracer = provider.get_tracer("test")

    for _ in range(100):  # returns, though nothing is ever taken away
        tracer.start_span("x").end()

    assert spans.dropped + spans.queued + 10 >= 100
    assert spans.queued <= 10
    exporter.go.set()
    assert spans.force_flush()
    assert exporter.sent == 100 - spans.dropped
    assert spans.queued == 0
    tracer.start_span("x").end()
    provider.shutdown()
    assert exporter.sent == 101 - spans.dropped


def test_what_the_collector_refuses_is_counted() -> None:
    exporter = Stuck(SpanExportResult.FAILURE)
    exporter.go.set()
    spans = BoundedSpans(exporter, 10)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(spans)
    provider.get_tracer("test").start_span("x").end()
    assert spans.force_flush()
    assert (spans.undelivered, spans.dropped) == (1, 0)
    provider.shutdown()
