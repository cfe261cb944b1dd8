"""A gate whose spans and metrics stay in memory."""

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from penstock.calls.factory import RequestFactory
from penstock.core.model import TrafficClass
from penstock.runtime.driver import Core, Driver
from penstock.runtime.gate import Gate
from penstock.telemetry.spans import ApiSpans
from penstock.telemetry.tracing import Telemetry
from tests.runtime.window import Window

OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"


class Recorder:
    """Takes down what one telemetry tells."""

    def __init__(
        self, env: Mapping[str, str] | None = None, sampler: Sampler | None = None
    ) -> None:
        self._exporter = InMemorySpanExporter()
        tracers = TracerProvider(sampler=sampler)
        tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader])
        self.telemetry = Telemetry(ApiSpans(tracers), self._meters, env or {})

    def gate(self, core: Core | None = None, ttl_s: float = float("inf")) -> Gate:
        factory = RequestFactory(
            (TrafficClass("all"),), run="run", tracer=self.telemetry, ttl_s=ttl_s
        )
        return Gate(Driver(core or Window(1), observers=[self.telemetry]), factory)

    @property
    def attempts(self) -> list[ReadableSpan]:
        return [each for each in self.spans if each.name == "penstock.attempt"]

    @property
    def operation(self) -> ReadableSpan:
        (span,) = [each for each in self.spans if each.name != "penstock.attempt"]
        return span

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def points(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """Return the metrics: name to attributes and value, or (count, sum) of a histogram."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: [
                (
                    dict(point.attributes or {}),
                    point.value if isinstance(point, NumberDataPoint) else (point.count, point.sum),
                )
                for point in metric.data.data_points
            ]
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(each.name, dict(each.attributes or {})) for each in span.events]
