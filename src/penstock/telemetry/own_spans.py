"""Spans of a pipeline of our own: they know what ours need, and cost a tenth of the SDK's.

What samples and names them is the SDK's; `otlp.py` encodes them.
"""

from collections import deque
from collections.abc import Callable

from opentelemetry.context import get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    get_current_span,
)

from penstock.telemetry.spans import ATTEMPT, Attributes, Value

EVENTS_AT_MOST = 128
"""Of one span, the latest; the SDK's own bound."""
_RANDOM = 2
"""W3C's flag for a trace's id that is random in its last 7 bytes."""


class _OwnTrace:
    """What all spans of a request have in common."""

    __slots__ = ("flags", "hand_over", "new_id", "number", "state")

    def __init__(
        self, spans: "OwnSpans", number: int, flags: int, state: TraceState | None
    ) -> None:
        self.new_id, self.hand_over = spans.new_id, spans.hand_over
        self.number = number
        self.flags = flags
        self.state = state.to_header() if state else ""


class OwnSpan:
    """A span; see `spans.Recording`. If it is not recorded, it has its name alone.

    Attributes:
        trace: its trace.
        number: its id.
        parent: the id of the span above it; 0 if there is none.
        remote: whether the span above it is another process's.
        attributes: what is known of it.
        events: when, which and with what, in order; the latest.
        happened: how many there were.
        failed: whether its status is an error.

    """

    __slots__ = (
        "attributes", "end_ns", "events", "failed", "happened", "is_recording", "name", "number",
        "parent", "remote", "start_ns", "trace",
    )  # fmt: skip

    context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    """The SDK's queue takes what is sampled; those that are not are never handed over."""

    def __init__(
        self, trace: _OwnTrace, name: str, parent: int, attributes: Attributes, start_ns: int
    ) -> None:
        """Begin it."""
        self.trace = trace
        self.name = name
        self.number = trace.new_id()
        self.parent = parent
        self.remote = False
        self.start_ns = self.end_ns = start_ns
        self.is_recording = bool(trace.flags & TraceFlags.SAMPLED)
        self.attributes: dict[str, Value] = dict(attributes) if self.is_recording else {}
        self.events: deque[tuple[int, str, Attributes]] = deque(maxlen=EVENTS_AT_MOST)
        self.happened = 0
        self.failed = False

    def attempt(self, attributes: Attributes, start_ns: int) -> "OwnSpan":
        """See `Recording`."""
        return OwnSpan(self.trace, ATTEMPT, self.number, attributes, start_ns)

    def tell(self, attributes: Attributes) -> None:
        """See `Recording`."""
        self.attributes.update(attributes)

    def event(self, name: str, attributes: Attributes, at_ns: int) -> None:
        """See `Recording`."""
        self.happened += 1
        self.events.append((at_ns, name, attributes))

    def end(self, at_ns: int, *, failed: bool) -> None:
        """See `Recording`."""
        if self.is_recording:
            self.end_ns = at_ns
            self.failed = failed
            self.trace.hand_over(self)

    def carried(self) -> dict[str, str]:
        """See `Recording`."""
        trace = self.trace
        found = {"traceparent": f"00-{trace.number:032x}-{self.number:016x}-{trace.flags:02x}"}
        if trace.state:
            found["tracestate"] = trace.state
        return found


class OwnSpans:
    """Makes them.

    Args:
        tracers: whose sampler and ids are used.
        hand_over: takes each recorded span at its end.

    """

    def __init__(self, tracers: TracerProvider, hand_over: Callable[[OwnSpan], None]) -> None:
        """Make none yet."""
        self._sampler = tracers.sampler
        self._new_trace = tracers.id_generator.generate_trace_id
        self.new_id = tracers.id_generator.generate_span_id
        is_random = getattr(tracers.id_generator, "is_trace_id_random", bool)
        self._flags_of_new = _RANDOM if is_random() else 0
        self.hand_over = hand_over

    def operation(self, name: str, attributes: Attributes, start_ns: int) -> OwnSpan:
        """See `SpanSource`."""
        context = get_current()
        above = get_current_span(context).get_span_context()
        joins = above.is_valid
        number = above.trace_id if joins else self._new_trace()
        flags = above.trace_flags & _RANDOM if joins else self._flags_of_new
        sampled = self._sampler.should_sample(
            context, number, name, SpanKind.CLIENT, attributes, ()
        )
        if sampled.decision is Decision.RECORD_AND_SAMPLE:
            flags |= TraceFlags.SAMPLED
        trace = _OwnTrace(self, number, flags, sampled.trace_state)
        span = OwnSpan(trace, name, above.span_id if joins else 0, attributes, start_ns)
        if span.is_recording and sampled.attributes is not attributes:
            span.attributes.update(sampled.attributes or ())
        span.remote = joins and above.is_remote
        return span
