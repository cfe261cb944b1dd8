"""Each request is one span, with the names of the GenAI semantic conventions."""

import asyncio

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from penstock.calls.factory import RequestFactory
from penstock.core.events import Action, Event
from penstock.core.model import TrafficClass
from penstock.errors import Refused
from penstock.runtime.driver import Driver
from penstock.runtime.gate import Gate
from penstock.runtime.spans import SpanTracer
from penstock.runtime.telemetry import Hooks
from penstock.runtime.virtual_loop import run_virtual
from penstock.wire.usage import Usage
from tests.runtime.window import Window


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def gate_with(spans: InMemorySpanExporter, ttl_s: float = float("inf")) -> Gate:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    factory = RequestFactory(
        (TrafficClass("all"),), run="run", tracer=SpanTracer(provider), ttl_s=ttl_s
    )
    return Gate(Driver(Window(1)), factory)


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans.get_finished_spans()
    return span


def test_a_completed_request_is_a_span_with_its_usage(spans: InMemorySpanExporter) -> None:
    async def main() -> None:
        words = {"model": "m", "endpoint": "messages", "vendor": "anthropic"}
        async with gate_with(spans).admit(**words) as slot:
            slot.first_token()
            slot.settle(Usage(12, 7))

    run_virtual(main())
    span = only(spans)
    assert span.name == "chat m"
    assert span.attributes is not None
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert span.attributes["gen_ai.provider.name"] == "anthropic"
    assert span.attributes["gen_ai.usage.output_tokens"] == 12
    assert span.attributes["gen_ai.usage.input_tokens"] == 7
    assert span.attributes["penstock.id"] == "run-1"
    assert [e.name for e in span.events] == ["penstock.dispatched", "penstock.first_token"]
    assert span.status.status_code is StatusCode.UNSET


def test_a_refused_request_says_why(spans: InMemorySpanExporter) -> None:
    async def main() -> None:
        async with gate_with(spans).admit() as slot:
            with pytest.raises(Refused):
                await slot.throttled("quota", 90_000.0)

    run_virtual(main())
    span = only(spans)
    assert span.attributes is not None
    assert span.attributes["error.type"] == "penstock_upstream"
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize(
    ("error", "result"), [(ZeroDivisionError, "failed"), (asyncio.CancelledError, "cancelled")]
)
def test_other_ends(spans: InMemorySpanExporter, error: type[BaseException], result: str) -> None:
    async def main() -> None:
        with pytest.raises(error):
            async with gate_with(spans).admit():
                raise error

    run_virtual(main())
    span = only(spans)
    assert span.attributes is not None
    assert span.attributes["penstock.result"] == result


def test_without_a_recorder_there_is_no_span() -> None:
    factory = RequestFactory((TrafficClass("all"),), run="run", tracer=SpanTracer())

    async def main() -> None:
        async with Gate(Driver(Window(1)), factory).admit() as slot:
            assert slot._trace is None

    run_virtual(main())


def test_hooks_are_plain_functions() -> None:
    seen: list[str] = []

    def on_event(now: float, event: Event) -> None:
        seen.append(type(event).__name__)

    def on_action(now: float, action: Action) -> None:
        seen.append(type(action).__name__)

    async def main() -> None:
        driver = Driver(Window(1), observers=[Hooks(on_event, on_action), Hooks()])
        async with Gate(driver, RequestFactory((TrafficClass("all"),), run="run")).admit():
            pass

    run_virtual(main())
    assert seen == ["Arrived", "Dispatch", "Completed"]
