"""An OTLP collector that keeps what it is sent."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.listening import serving_http


class Collector:
    """What was sent, decoded."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.metrics: set[str] = set()
        self.services: set[str] = set()
        self.bytes = b""
        self.status = 200
        self.held = threading.Event()
        self.held.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.held.wait(60)
                if collector.status == 200:
                    collector.take(self.path, body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

        self.handler = Handler

    def take(self, path: str, body: bytes) -> None:
        self.bytes += body
        if path == "/v1/traces":
            for traced in ExportTraceServiceRequest.FromString(body).resource_spans:
                self._service(traced.resource)
                for scope in traced.scope_spans:
                    self.spans.extend(scope.spans)
        else:
            for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for metrics in measured.scope_metrics:
                    self.metrics.update(metric.name for metric in metrics.metrics)

    def _service(self, resource: Any) -> None:
        for each in resource.attributes:
            if each.key == "service.name":
                self.services.add(each.value.string_value)

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    with serving_http(collector.handler) as port:
        collector.url = f"http://127.0.0.1:{port}"
        try:
            yield collector
        finally:
            collector.held.set()
