"""Spans and metrics of requests, made from what the scheduler is told and decides.

One CLIENT span covers a request from its submission to its end, with all attempts; each attempt is
a CLIENT span under it. No text, no key and no session is in any of them.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from math import inf
from typing import Any

from opentelemetry.context import Context, attach, detach
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from penstock.calls.spec import RequestSpec
from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Defer,
    Dispatch,
    Event,
    Failed,
    FirstToken,
    Reject,
    Throttled,
    Why,
    WindowMoved,
)
from penstock.core.model import Request
from penstock.telemetry import conventions as names
from penstock.telemetry.forks import when_forked
from penstock.telemetry.instruments import Make, instruments_of

_W3C = TraceContextTextMapPropagator()
_CARRIED = {b"traceparent": "traceparent", b"tracestate": "tracestate"}
_NOTHING: dict[str, str] = {}
OTHER = "_OTHER"
"""OpenTelemetry's word for an error that nobody has named."""


class _OpenCall:
    """What is remembered of a request until it ends."""

    __slots__ = (
        "attempt", "attempts", "error", "host", "model", "operation", "port", "request", "span",
        "started_ns", "streams", "told", "upstream", "vendor", "waits",
    )  # fmt: skip

    span: Span

    def __init__(self, request: Request, spec: RequestSpec, started_ns: int) -> None:
        self.request = request
        self.operation = names.operation_of(spec.endpoint)
        self.vendor = spec.vendor
        facts = spec.facts
        self.streams = facts is not None and facts.streams
        # As the caller names it: the scheduler's name says whose API it belongs to.
        self.model = (facts.model if facts is not None else "") or request.model
        self.started_ns = started_ns
        self.attempt: Span | None = None
        """The attempt that flies; None while the request waits."""
        self.attempts = 0
        self.waits = False
        self.told: dict[str, Any] = {}
        """What the span is told at its end: a look-up in it costs less than the SDK's checks."""
        self.upstream = self.host = self.error = ""
        self.port: int | None = None

    def at_ns(self, now: float) -> int:
        """Return the calendar's time at `now`: what a span lasts is what the scheduler measured."""
        return self.started_ns + int((now - self.request.arrived_at) * 1e9)

    def labels(self) -> dict[str, str | int]:
        """Return the attributes of metrics about the operation."""
        found: dict[str, str | int] = {
            names.OPERATION: self.operation,
            names.PROVIDER: names.provider_of(self.host, self.vendor),
        }
        if self.model:
            found[names.MODEL] = self.model
        found.update(self.server())
        return found

    def server(self) -> dict[str, str | int]:
        """Return where the last attempt went, as far as is known."""
        if not self.host:
            return {}
        if self.port is None:
            return {names.ADDRESS: self.host}
        return {names.ADDRESS: self.host, names.PORT: self.port}


class Telemetry:
    """A tracer and observer; see `calls.tracing.Tracer`.

    Args:
        tracers: where spans go.
        meters: where measurements go.
        env: `OTEL_SEMCONV_STABILITY_OPT_IN` says which names are used.
        make: makes histograms; the meters do if None.

    Attributes:
        measured: what is measured.

    """

    def __init__(
        self,
        tracers: TracerProvider,
        meters: MeterProvider,
        env: Mapping[str, str] = os.environ,
        make: Make | None = None,
    ) -> None:
        """Get a tracer and the instruments."""
        self._tracer = tracers.get_tracer("penstock")
        self.measured = instruments_of(meters, names.opted(env), make)
        self._calls: dict[int, _OpenCall] = {}
        self._on: dict[type, Callable[[_OpenCall, float, Any], None]] = {
            Arrived: self._arrived,
            FirstToken: self._first_token,
            Throttled: self._throttled,
            Failed: self._failed,
            Completed: self._completed,
            Cancelled: self._cancelled,
        }
        when_forked(self.forget)

    # What a tracer is asked for, in the caller's own context

    def enter(self, headers: Iterable[tuple[bytes, bytes]]) -> Token[Context] | None:
        """Let what follows be the caller's who sent these headers; None if they name no trace."""
        carried: dict[str, list[str]] = {}
        for name, value in headers:
            known = _CARRIED.get(name)
            if known is not None:
                carried.setdefault(known, []).append(value.decode("latin-1"))
        if "traceparent" not in carried:
            return None
        return attach(_W3C.extract(carried, context=Context()))

    def leave(self, token: Token[Context]) -> None:
        """Undo `enter`."""
        detach(token)

    def begin(self, public_id: str, request: Request, spec: RequestSpec) -> None:
        """Begin the request's span, as a child of the caller's current one."""
        call = _OpenCall(request, spec, time.time_ns())
        attributes = call.labels() | {
            "penstock.id": public_id,
            "penstock.class": request.traffic_class,
        }
        if request.tenant:
            attributes["penstock.tenant"] = request.tenant
        call.span = self._tracer.start_span(
            f"{call.operation} {call.model}".rstrip(),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=call.started_ns,
        )
        self._calls[request.id] = call
        if call.span.is_recording():
            call.told = _asked(request, spec)

    def headers(self, request_id: int, host: str, port: int | None) -> Mapping[str, str]:
        """Return the headers that carry the trace to the provider; none if nobody traces."""
        call = self._calls.get(request_id)
        if call is None:
            return _NOTHING
        call.host, call.port = host, port
        carrying = call.span if call.attempt is None else call.attempt
        if carrying.is_recording():
            carrying.set_attributes(call.server())
        carried: dict[str, str] = {}
        _W3C.inject(carried, context=set_span_in_context(carrying, Context()))
        return carried

    # What an observer is shown

    def event(self, now: float, event: Event) -> None:
        """Note what happened to a request."""
        note = self._on.get(type(event))
        if note is None:
            return
        id_ = event.request.id if type(event) is Arrived else event.request_id  # type: ignore[union-attr]
        call = self._calls.get(id_)
        if call is not None:
            note(call, now, event)

    def action(self, now: float, action: Action) -> None:
        """Note what was decided about a request, and where a window is."""
        if type(action) is WindowMoved:
            self._window_is(action.upstream, action.after)
            return
        call = self._calls.get(action.request.id)  # type: ignore[union-attr]
        if call is None:
            return
        if type(action) is Dispatch:
            self._dispatched(call, now, action)
        elif type(action) is Defer:
            self._deferred(call, now, action)
        elif type(action) is Reject:
            self._rejected(call, now, action)

    def _arrived(self, call: _OpenCall, _now: float, _event: Arrived) -> None:
        self._waits(call, waits=True)

    def _dispatched(self, call: _OpenCall, now: float, action: Dispatch) -> None:
        why, upstream = action.why, action.upstream
        call.attempts += 1
        call.upstream = upstream
        where = {"penstock.upstream": upstream}
        self._waits(call, waits=False)
        self.measured.in_flight.add(1, where)
        self._window_is(upstream, why.window)
        if call.attempts == 1:
            self.measured.queue.record(
                why.waited_s, {"penstock.class": call.request.traffic_class, **where}
            )
        if not call.span.is_recording():
            call.attempt = call.span
            return
        at = call.at_ns(now)
        call.span.add_event("penstock.dispatch", _why(why), at)
        call.attempt = self._tracer.start_span(
            "penstock.attempt",
            set_span_in_context(call.span, Context()),
            SpanKind.CLIENT,
            {**where, "penstock.attempt": call.attempts},
            start_time=at,
        )

    def _deferred(self, call: _OpenCall, now: float, action: Defer) -> None:
        self.measured.deferrals.add(1, {"penstock.class": call.request.traffic_class})
        if call.span.is_recording():
            facts = {**_why(action.why), "penstock.reason": action.reason}
            facts["penstock.deferred_s"] = action.until - now
            call.span.add_event("penstock.defer", facts, call.at_ns(now))

    def _rejected(self, call: _OpenCall, now: float, action: Reject) -> None:
        reason = action.reason
        # With "upstream" the provider's last answer stands, and has been named.
        call.error = call.error if reason == "upstream" and call.error else f"penstock_{reason}"
        self.measured.refusals.add(
            1, {"penstock.class": call.request.traffic_class, "penstock.reason": reason}
        )
        if call.span.is_recording():
            facts = {**_why(action.why), "penstock.reason": reason}
            if action.retry_after_s is not None:
                facts["penstock.retry_after_s"] = action.retry_after_s
            call.span.add_event("penstock.refusal", facts, call.at_ns(now))
        self._end(call, now, "refused")

    def _first_token(self, call: _OpenCall, now: float, _event: FirstToken) -> None:
        if call.streams:
            after_s = now - call.request.arrived_at
            self.measured.first_chunk(after_s, call.labels())
            if call.span.is_recording():
                call.told["gen_ai.response.time_to_first_chunk"] = after_s

    def _throttled(self, call: _OpenCall, now: float, event: Throttled) -> None:
        self._broke(call, now, event.cause.value, retryable=event.retryable)

    def _failed(self, call: _OpenCall, now: float, event: Failed) -> None:
        error = "broken" if event.upstream_fault else OTHER
        self._broke(call, now, error if event.reached else "unreachable", retryable=event.retryable)

    def _broke(self, call: _OpenCall, now: float, error: str, *, retryable: bool) -> None:
        call.error = error
        self._landed(call, now, error)
        if not retryable:
            self._end(call, now, "failed")
            return
        self._waits(call, waits=True)
        if call.span.is_recording():
            facts: dict[str, Any] = {names.ERROR: error, "penstock.attempt": call.attempts}
            call.span.add_event("penstock.retry", facts, call.at_ns(now))

    def _completed(self, call: _OpenCall, now: float, event: Completed) -> None:
        call.error = ""
        self._landed(call, now, "completed")
        used = (event.prompt_tokens, event.output_tokens, event.cached_tokens)
        self.measured.used(*used, call.labels())
        if call.span.is_recording():
            for name, count in zip(_USAGE, used, strict=True):
                if count is not None:
                    call.told[name] = count
        self._end(call, now, "completed")

    def _cancelled(self, call: _OpenCall, now: float, _event: Cancelled) -> None:
        call.error = "cancelled"
        if call.attempt is not None:
            self._landed(call, now, "cancelled")
        self._end(call, now, "cancelled")

    # Small things

    def _waits(self, call: _OpenCall, *, waits: bool) -> None:
        call.waits = waits
        change = 1 if waits else -1
        self.measured.backlog.add(change, {"penstock.class": call.request.traffic_class})

    def _window_is(self, upstream: str, window: float) -> None:
        if window < inf:
            self.measured.window.put(window, {"penstock.upstream": upstream})

    def _landed(self, call: _OpenCall, now: float, outcome: str) -> None:
        """End the attempt that flies."""
        attempt, call.attempt = call.attempt, None
        if attempt is None:
            return
        where = {"penstock.upstream": call.upstream}
        self.measured.in_flight.add(-1, where)
        self.measured.attempts.add(1, {**where, "penstock.outcome": outcome})
        if attempt.is_recording():
            if call.error:
                attempt.set_attribute(names.ERROR, call.error)
                if outcome != "cancelled":
                    attempt.set_status(_FAILED)
            attempt.end(call.at_ns(now))

    def _end(self, call: _OpenCall, now: float, outcome: str) -> None:
        """End the whole operation."""
        self._calls.pop(call.request.id, None)
        if call.waits:
            self._waits(call, waits=False)
        labels = call.labels()
        if call.error:
            labels[names.ERROR] = call.error
        self.measured.took(now - call.request.arrived_at, labels)
        span = call.span
        if not span.is_recording():
            return
        told = call.told | call.server()
        told["penstock.outcome"] = outcome
        if call.attempts != 1:
            told["penstock.attempts"] = call.attempts
        if call.host:  # it may name the provider better than the dialect did
            told[names.PROVIDER] = labels[names.PROVIDER]
        if call.error:
            told[names.ERROR] = call.error
        if call.upstream:
            told["penstock.upstream"] = call.upstream
        span.set_attributes(told)
        if outcome in ("failed", "refused"):
            span.set_status(_FAILED)
        span.end(call.at_ns(now))

    def forget(self) -> None:
        """Forget the parent's calls, in a forked child."""
        self._calls = {}
        self.measured.forked()


_FAILED = Status(StatusCode.ERROR)
_USAGE = (names.INPUT_TOKENS, names.OUTPUT_TOKENS, names.CACHED_TOKENS)


def _asked(request: Request, spec: RequestSpec) -> dict[str, Any]:
    """Return what is known of a request before it is sent, and was estimated."""
    estimate, facts = request.estimate, spec.facts
    found: dict[str, Any] = {
        "penstock.estimate.p50_tokens": estimate.p50_tokens,
        "penstock.estimate.p90_tokens": estimate.p90_tokens,
    }
    replies = 1
    if facts is not None:
        replies = max(1, facts.replies)
        if facts.streams:
            found["gen_ai.request.stream"] = True
        if replies != 1:
            found["gen_ai.request.choice.count"] = replies
    if request.cap_tokens is not None:
        found["gen_ai.request.max_tokens"] = request.cap_tokens // replies
    return found


def _why(why: Why) -> dict[str, Any]:
    """Return what a decision stood on."""
    found: dict[str, Any] = {
        "penstock.queued_s": why.waited_s,
        "penstock.severity": why.severity,
        "penstock.rung": why.rung,
        "penstock.in_flight": why.in_flight,
        "penstock.backlog": why.backlog,
    }
    if why.window < inf:
        found["penstock.window"] = why.window
    if why.waits:
        found["penstock.cause"] = max(why.waits, key=why.waits.__getitem__)
    return found
