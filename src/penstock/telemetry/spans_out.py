"""Hands spans to an exporter in batches; what does not fit is dropped and counted, nobody waits."""

import os
import threading
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from penstock.telemetry.forks import when_forked
from penstock.telemetry.own_spans import OwnSpan

_BATCH = 512
"""The specification's."""


class _CountedExporter(SpanExporter):
    """Counts what an exporter is given, and what it could not deliver."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.taken = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        try:
            result = self._inner.export(spans)
        except Exception:
            self.failed += len(spans)
            raise
        if result is not SpanExportResult.SUCCESS:
            self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def _batch() -> int:
    said = os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "").strip()
    return int(said) if said.isascii() and said.isdigit() and int(said) else _BATCH


class BoundedSpans(SpanProcessor):
    """The SDK's batch processor, behind a count of what is queued.

    The SDK's own processor drops the oldest span when its queue is full and logs each, which costs
    6 us; it tells nobody how many.

    Args:
        exporter: sends them.
        queue_limit: how many spans may wait; more are dropped.

    Attributes:
        dropped: how many spans found the queue full.

    """

    def __init__(self, exporter: SpanExporter, queue_limit: int) -> None:
        """Start the SDK's thread."""
        self._counting = _CountedExporter(exporter)
        self._limit = queue_limit
        self._batches = BatchSpanProcessor(
            self._counting,
            max_queue_size=queue_limit,
            max_export_batch_size=min(_batch(), queue_limit),
        )
        self._lock = threading.Lock()
        self._passed = 0
        self.dropped = 0
        when_forked(self._forget)

    @property
    def queued(self) -> int:
        """How many spans wait."""
        return self._passed - self._counting.taken

    @property
    def undelivered(self) -> int:
        """How many spans the exporter could not deliver."""
        return self._counting.failed

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, if it is sampled."""
        if span.context is not None and span.context.trace_flags.sampled:
            self.take(span)

    def take(self, span: "ReadableSpan | OwnSpan") -> None:
        """Queue a sampled span, or drop it."""
        with self._lock:
            if self._passed - self._counting.taken >= self._limit:
                self.dropped += 1
                return
            self._passed += 1
        self._batches.on_end(span)  # type: ignore[arg-type]

    def shutdown(self) -> None:
        """Send what waits, and end."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def _forget(self) -> None:
        """Forget what the parent will send."""
        self._lock = threading.Lock()
        self._passed = self._counting.taken

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits."""
        return self._batches.force_flush(timeout_millis)
