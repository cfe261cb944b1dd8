"""Spans and metrics of requests, made from what the scheduler is told and decides.

One CLIENT span covers a request from its submission to its end, with all attempts; each attempt is
a CLIENT span under it. No text, no key and no session is in any of them.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from math import inf
from typing import Any

from opentelemetry.context import Context, attach, detach
from opentelemetry.metrics import MeterProvider

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
from penstock.telemetry.spans import W3C, Recording, SpanSource

_NOTHING: dict[str, str] = {}
OTHER = "_OTHER"
"""OpenTelemetry's word for an error that nobody has named."""
_CLASS, _UPSTREAM, _REASON = "penstock.class", "penstock.upstream", "penstock.reason"
_OUTCOME, _ATTEMPT = "penstock.outcome", "penstock.attempt"
_USAGE = (
    ("input", names.INPUT_TOKENS),
    ("output", names.OUTPUT_TOKENS),
    ("cache_read.input", names.CACHED_TOKENS),
)
_ROUTES_KEPT, _LONGEST_KEPT = 1000, 200
"""Routes, and the characters of their models: callers write these."""


class _CallRoute:
    """What all calls of an operation to one model at one place have in common.

    Attributes:
        operation: as the conventions call it.
        name: of the span.
        facts: its attributes.
        labels: the same, of metrics.
        server: where it goes; nothing while that is unknown.

    """

    __slots__ = ("facts", "labels", "name", "operation", "server")

    def __init__(
        self, operation: str, vendor: str, model: str, host: str, port: int | None
    ) -> None:
        self.operation = operation
        self.name = f"{operation} {model}".rstrip()
        self.server: dict[str, str | int] = {names.ADDRESS: host} if host else {}
        if host and port is not None:
            self.server[names.PORT] = port
        self.facts: dict[str, str | int] = {
            names.OPERATION: operation,
            names.PROVIDER: names.provider_of(host, vendor),
        }
        if model:
            self.facts[names.MODEL] = model
        self.facts.update(self.server)
        self.labels = tuple(self.facts.items())


class _OpenCall:
    """What is remembered of a request until it ends."""

    __slots__ = (
        "asked", "attempt", "attempts", "error", "request", "route", "span", "started_ns",
        "streams", "told", "upstream", "waits",
    )  # fmt: skip

    span: Recording
    route: _CallRoute

    def __init__(self, request: Request, spec: RequestSpec, started_ns: int) -> None:
        self.request = request
        facts = spec.facts
        self.streams = facts is not None and facts.streams
        # As the caller names it: the scheduler's name says whose API it belongs to.
        model = (facts.model if facts is not None else "") or request.model
        self.asked = names.operation_of(spec.endpoint), spec.vendor, model
        self.started_ns = started_ns
        self.attempt: Recording | None = None
        """The attempt that flies; None while the request waits."""
        self.attempts = 0
        self.waits = False
        self.told: dict[str, Any] = {}
        """What the span is told at its end: one telling costs less than five."""
        self.upstream = self.error = ""

    def at_ns(self, now: float) -> int:
        """Return the calendar's time at `now`: what a span lasts is what the scheduler measured."""
        return self.started_ns + int((now - self.request.arrived_at) * 1e9)


class Telemetry:
    """A tracer and observer; see `calls.tracing.Tracer`.

    Args:
        spans: makes them.
        meters: where measurements go.
        env: `OTEL_SEMCONV_STABILITY_OPT_IN` says which names are used.
        make: makes histograms; the meters do if None.

    Attributes:
        measured: what is measured.

    """

    def __init__(
        self,
        spans: SpanSource,
        meters: MeterProvider,
        env: Mapping[str, str] = os.environ,
        make: Make | None = None,
    ) -> None:
        """Get the instruments."""
        self._spans = spans
        self.measured = instruments_of(meters, names.opted(env), make)
        self._calls: dict[int, _OpenCall] = {}
        self._routes: dict[tuple[str, str, str, str, int | None], _CallRoute] = {}
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

    def enter(self, headers: Sequence[tuple[bytes, bytes]]) -> Token[Context] | None:
        """Let what follows be the caller's who sent these headers; None if they name no trace."""
        parents = [value.decode("latin-1") for name, value in headers if name == b"traceparent"]
        if not parents:
            return None
        carried = {"traceparent": parents}
        if states := [value.decode("latin-1") for name, value in headers if name == b"tracestate"]:
            carried["tracestate"] = states
        return attach(W3C.extract(carried, context=Context()))

    def leave(self, token: Token[Context]) -> None:
        """Leave the context that `enter` set."""
        detach(token)

    def begin(self, public_id: str, request: Request, spec: RequestSpec) -> None:
        """Begin the request's span, as a child of the caller's current one."""
        call = _OpenCall(request, spec, time.time_ns())
        route = call.route = self._route(*call.asked, "", None)
        call.span = self._spans.operation(route.name, route.facts, call.started_ns)
        self._calls[request.id] = call
        if call.span.is_recording:
            call.told = _asked(public_id, request, spec)

    def headers(self, request_id: int, host: str, port: int | None) -> Mapping[str, str]:
        """Return the headers that carry the trace to the provider; none if nobody traces."""
        call = self._calls.get(request_id)
        if call is None:
            return _NOTHING
        route = call.route = self._route(*call.asked, host, port)
        attempt = call.attempt
        if attempt is None:
            return call.span.carried()
        if attempt.is_recording:
            attempt.tell(route.server)
        return attempt.carried()

    def _route(
        self, operation: str, vendor: str, model: str, host: str, port: int | None
    ) -> _CallRoute:
        key = (operation, vendor, model, host, port)
        found = self._routes.get(key)
        if found is None:
            found = _CallRoute(*key)
            if len(self._routes) >= _ROUTES_KEPT or len(model) > _LONGEST_KEPT:
                return found
            self._routes[key] = found
        return found

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
        self._waits(call, waits=False)
        where = (_UPSTREAM, upstream)
        self.measured.in_flight.add(1, (where,))
        self._window_is(upstream, why.window)
        if call.attempts == 1:
            labels = ((_CLASS, call.request.traffic_class), where)
            self.measured.queue.record(why.waited_s, labels)
        span = call.span
        if not span.is_recording:
            call.attempt = span
            return
        at_ns = call.at_ns(now)
        span.event("penstock.dispatch", _why(why), at_ns)
        call.attempt = span.attempt({_UPSTREAM: upstream, _ATTEMPT: call.attempts}, at_ns)

    def _deferred(self, call: _OpenCall, now: float, action: Defer) -> None:
        self.measured.deferrals.add(1, ((_CLASS, call.request.traffic_class),))
        if call.span.is_recording:
            facts = {**_why(action.why), _REASON: action.reason}
            facts["penstock.deferred_s"] = action.until - now
            call.span.event("penstock.defer", facts, call.at_ns(now))

    def _rejected(self, call: _OpenCall, now: float, action: Reject) -> None:
        reason = action.reason
        # With "upstream" the provider's last answer stands, and has been named.
        call.error = call.error if reason == "upstream" and call.error else f"penstock_{reason}"
        labels = ((_CLASS, call.request.traffic_class), (_REASON, reason))
        self.measured.refusals.add(1, labels)
        if call.span.is_recording:
            facts = {**_why(action.why), _REASON: reason}
            if action.retry_after_s is not None:
                facts["penstock.retry_after_s"] = action.retry_after_s
            call.span.event("penstock.refusal", facts, call.at_ns(now))
        self._end(call, now, "refused")

    def _first_token(self, call: _OpenCall, now: float, _event: FirstToken) -> None:
        if call.streams:
            route, after_s = call.route, now - call.request.arrived_at
            self.measured.first_chunk(route.operation, after_s, route.labels)
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
        if call.span.is_recording:
            facts: dict[str, Any] = {names.ERROR: error, _ATTEMPT: call.attempts}
            call.span.event("penstock.retry", facts, call.at_ns(now))

    def _completed(self, call: _OpenCall, now: float, event: Completed) -> None:
        call.error = ""
        self._landed(call, now, "completed")
        counts = (event.prompt_tokens, event.output_tokens, event.cached_tokens)
        route = call.route
        for (kind, name), count in zip(_USAGE, counts, strict=True):
            if count is not None:
                self.measured.used(route.operation, kind, count, route.labels)
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
        labels = ((_CLASS, call.request.traffic_class),)
        self.measured.backlog.add(1 if waits else -1, labels)

    def _window_is(self, upstream: str, window: float) -> None:
        if window < inf:
            self.measured.window.put(window, ((_UPSTREAM, upstream),))

    def _landed(self, call: _OpenCall, now: float, outcome: str) -> None:
        """End the attempt that flies."""
        attempt, call.attempt = call.attempt, None
        if attempt is None:
            return
        where = (_UPSTREAM, call.upstream)
        self.measured.in_flight.add(-1, (where,))
        self.measured.attempts.add(1, (where, (_OUTCOME, outcome)))
        if attempt.is_recording:
            if call.error:
                attempt.tell({names.ERROR: call.error})
            attempt.end(call.at_ns(now), failed=bool(call.error) and outcome != "cancelled")

    def _end(self, call: _OpenCall, now: float, outcome: str) -> None:
        """End the whole operation."""
        self._calls.pop(call.request.id, None)
        if call.waits:
            self._waits(call, waits=False)
        route, error = call.route, call.error
        labels = (*route.labels, (names.ERROR, error)) if error else route.labels
        self.measured.took(route.operation, now - call.request.arrived_at, labels)
        span = call.span
        if not span.is_recording:
            return
        told = call.told
        if route.server:
            told.update(route.facts)  # it may name the provider better than the dialect did
        told[_OUTCOME] = outcome
        if call.attempts != 1:
            told["penstock.attempts"] = call.attempts
        if error:
            told[names.ERROR] = error
        if call.upstream:
            told[_UPSTREAM] = call.upstream
        span.tell(told)
        span.end(call.at_ns(now), failed=outcome in ("failed", "refused"))

    def forget(self) -> None:
        """Forget the parent's calls, in a forked child."""
        self._calls = {}
        self.measured.forked()


def _asked(public_id: str, request: Request, spec: RequestSpec) -> dict[str, Any]:
    """Return what is known of a request before it is sent, and was estimated."""
    estimate, facts = request.estimate, spec.facts
    found: dict[str, Any] = {
        "penstock.id": public_id,
        _CLASS: request.traffic_class,
        "penstock.estimate.p50_tokens": estimate.p50_tokens,
        "penstock.estimate.p90_tokens": estimate.p90_tokens,
    }
    if request.tenant:
        found["penstock.tenant"] = request.tenant
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
    if cause := why.longest_wait:
        found["penstock.cause"] = cause
    return found
