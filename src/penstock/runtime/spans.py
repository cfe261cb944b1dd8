"""OpenTelemetry spans for requests, by the GenAI semantic conventions (1.37 and later).

Needs the `opentelemetry-api` package. Without an SDK set up by the program nothing is recorded,
and a request costs 1 us more.
"""

from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from penstock.core.events import Dispatch, Reject
from penstock.core.model import Request


class SpanTracer:
    """Begins one span a request: from its submission to its last token.

    Args:
        provider: where spans go; the program's global one if None.

    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """Get a tracer."""
        self._global = provider is None
        self._tracer = trace.get_tracer("penstock", tracer_provider=provider)

    def begin(
        self, public_id: str, request: Request, *, operation: str, vendor: str
    ) -> "RequestSpan | None":
        """Begin a span as a child of the caller's current one; None if it is not recorded."""
        if self._global and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return None  # nobody has set one up (yet), and a proxy's span costs 5 us
        name = f"{operation or 'chat'} {request.model}".strip()
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT)
        if not span.is_recording():
            return None
        estimate = request.estimate
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation or "chat",
            "gen_ai.request.model": request.model,
            "gen_ai.provider.name": vendor,
            "penstock.id": public_id,
            "penstock.class": request.traffic_class,
            "penstock.tenant": request.tenant,
            "penstock.estimate.p50_tokens": estimate.p50_tokens,
            "penstock.estimate.p90_tokens": estimate.p90_tokens,
            "penstock.estimate.source": estimate.source,
        }
        span.set_attributes({key: value for key, value in attributes.items() if value != ""})
        return RequestSpan(span)


class RequestSpan:
    """One request's span."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        """Hold a span that is recorded."""
        self._span = span

    def decided(self, word: Dispatch | Reject) -> None:
        """Note when and why it was dispatched or refused."""
        why = word.why
        facts: dict[str, Any] = {
            "penstock.queued_s": why.waited_s,
            "penstock.severity": why.severity,
            "penstock.rung": why.rung,
            "penstock.in_flight": why.in_flight,
            "penstock.backlog": why.backlog,
        }
        if isinstance(word, Dispatch):
            self._span.add_event("penstock.dispatched", {**facts, "upstream": word.upstream})
            self._span.set_attribute("penstock.queued_s", why.waited_s)
            self._span.set_attribute("penstock.upstream", word.upstream)
        else:
            self._span.add_event("penstock.refused", {**facts, "reason": word.reason})
            self._span.set_attribute("error.type", f"penstock_{word.reason}")

    def first_token(self) -> None:
        """Note when the reply began."""
        self._span.add_event("penstock.first_token")

    def ended(self, result: str, output_tokens: int | None, prompt_tokens: int | None) -> None:
        """Note the usage and the result, and end the span."""
        if prompt_tokens is not None:
            self._span.set_attribute("gen_ai.usage.input_tokens", prompt_tokens)
        if output_tokens is not None:
            self._span.set_attribute("gen_ai.usage.output_tokens", output_tokens)
        self._span.set_attribute("penstock.result", result)
        if result in ("failed", "refused"):
            self._span.set_status(Status(StatusCode.ERROR, result))
        self._span.end()
