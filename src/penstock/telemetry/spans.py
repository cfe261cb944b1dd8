"""Where spans come from: a program's own tracer provider, or `own_spans`."""

from collections.abc import Mapping
from typing import Any, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Value = str | bool | int | float
Attributes = Mapping[str, Value]
ATTEMPT = "penstock.attempt"
W3C = TraceContextTextMapPropagator()
_FAILED = Status(StatusCode.ERROR)


class Recording(Protocol):
    """A span; times are nanoseconds since 1970."""

    is_recording: bool
    """Whether anybody will see what it is told."""

    def attempt(self, attributes: Attributes, start_ns: int) -> "Recording":
        """Begin a span under this one, which is recorded."""
        ...

    def tell(self, attributes: Attributes) -> None:
        """Add to what is known of it."""
        ...

    def event(self, name: str, attributes: Attributes, at_ns: int) -> None:
        """Add an event to the span."""
        ...

    def end(self, at_ns: int, *, failed: bool) -> None:
        """End the span, which exports it."""
        ...

    def carried(self) -> dict[str, str]:
        """Return the headers that name it to the provider."""
        ...


class SpanSource(Protocol):
    """Begins them."""

    def operation(self, name: str, attributes: Attributes, start_ns: int) -> Recording:
        """Begin the span of a request, under the caller's current one."""
        ...


class ApiSpans:
    """Those of a tracer provider."""

    def __init__(self, tracers: TracerProvider) -> None:
        """Get its tracer."""
        self._tracer = tracers.get_tracer("penstock")

    def operation(self, name: str, attributes: Attributes, start_ns: int) -> "_ApiSpan":
        """See `SpanSource`."""
        return _ApiSpan(self._tracer, name, attributes, start_ns, None)


class _ApiSpan:
    """A span of OpenTelemetry's API."""

    __slots__ = ("_span", "_tracer", "is_recording")

    def __init__(
        self, tracer: Any, name: str, attributes: Attributes, start_ns: int, context: Context | None
    ) -> None:
        self._tracer = tracer
        self._span = tracer.start_span(
            name, context, SpanKind.CLIENT, attributes, start_time=start_ns
        )
        self.is_recording: bool = self._span.is_recording()

    def attempt(self, attributes: Attributes, start_ns: int) -> "_ApiSpan":
        under = set_span_in_context(self._span, Context())
        return _ApiSpan(self._tracer, ATTEMPT, attributes, start_ns, under)

    def tell(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes, at_ns: int) -> None:
        self._span.add_event(name, attributes, at_ns)

    def end(self, at_ns: int, *, failed: bool) -> None:
        if failed:
            self._span.set_status(_FAILED)
        self._span.end(at_ns)

    def carried(self) -> dict[str, str]:
        found: dict[str, str] = {}
        W3C.inject(found, context=set_span_in_context(self._span, Context()))
        return found
