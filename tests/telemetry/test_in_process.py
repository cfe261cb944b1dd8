"""A program's calls are in its own traces, through every door; where nobody asks nothing loads."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from tests.telemetry.collector import Collector, collecting

DOORS = """
import asyncio, sys
import httpx2
import penstock
{setup}
seen = []
def provider(request):
    seen.append(request.headers.get("traceparent"))
    status = 503 if len(seen) == 1 else 200
    return httpx2.Response(status, json={{"choices": [{{"message": {{"content": "ho"}}}}],
        "usage": {{"prompt_tokens": 3, "completion_tokens": 7}}}})
body = {{"model": "m", "messages": [{{"role": "user", "content": "the-secret"}}]}}
url = "https://api.groq.com/v1/chat/completions"
def calls():
    inner = httpx2.MockTransport(provider)
    with httpx2.Client(transport=penstock.Transport(inner)) as client:
        assert client.post(url, json=body).status_code == 200
    async def main():
        async with httpx2.AsyncClient(transport=penstock.AsyncTransport(inner)) as client:
            assert (await client.post(url, json=body)).status_code == 200
    asyncio.run(main())
    @penstock.scheduled(model="m", vendor="openai")
    def decorated():
        return "x"
    decorated()
"""
HOST = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider_ = TracerProvider()
provider_.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider_)
metrics.set_meter_provider(MeterProvider([reader]))
"""


def run(script: str, setup: str = "", **env: str) -> str:
    whole = DOORS.format(setup=setup) + textwrap.dedent(script)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True, env=kept | env, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_where_nobody_asks_nothing_of_opentelemetry_is_loaded() -> None:
    run(
        """
        calls()
        assert seen[0] is None
        assert not [name for name in sys.modules if name.startswith("opentelemetry")]
        """
    )


def test_the_programs_own_providers_get_every_doors_calls() -> None:
    run(
        """
        with trace.get_tracer("program").start_as_current_span("work") as work:
            calls()
        made = spans.get_finished_spans()
        root = work.get_span_context()
        operations = [s for s in made if s.name == "chat m"]
        attempts = [s for s in made if s.name == "penstock.attempt"]
        assert [s.parent.span_id for s in operations] == [root.span_id] * 3
        assert len(attempts) == 4  # the first call was refused once
        sent = [f"00-{root.trace_id:032x}-{s.context.span_id:016x}" for s in attempts]
        assert [each[:52] for each in seen] == sent[:3]
        assert operations[0].attributes["gen_ai.provider.name"] == "groq"
        assert operations[0].attributes["server.address"] == "api.groq.com"
        assert operations[0].attributes["server.port"] == 443
        assert operations[0].attributes["gen_ai.usage.output_tokens"] == 7
        names = {m.name for r in reader.get_metrics_data().resource_metrics
                 for s in r.scope_metrics for m in s.metrics}
        assert {"gen_ai.client.operation.duration", "penstock.attempts"} <= names
        """,
        HOST,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",  # the program has its own
    )


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def test_a_program_without_providers_exports_by_its_environment(collector: Collector) -> None:
    run("calls()", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="shop")
    assert len(collector.named("chat m")) == 3
    assert len(collector.named("penstock.attempt")) == 4
    assert collector.services == {"shop"}
    assert "penstock.attempts" in collector.metrics
    assert b"the-secret" not in collector.bytes


def test_a_missing_package_costs_the_traces_and_no_call() -> None:
    told = run("calls()", "sys.modules['opentelemetry.sdk'] = None\n"
               "import logging; logging.basicConfig()",
               OTEL_TRACES_EXPORTER="console")  # fmt: skip
    assert told.count("pip install 'penstock[otel]'") == 1


def test_a_forked_child_forgets_its_parents_calls() -> None:
    run(
        """
        import os
        slot = penstock.sync_gate("x").enter(penstock.RequestSpec(model="parent"))
        child = os.fork()
        if not child:
            with penstock.sync_gate("x").admit(model="child") as own:
                own.settle()
            points = [p for r in reader.get_metrics_data().resource_metrics
                      for s in r.scope_metrics for m in s.metrics if m.name == "penstock.in_flight"
                      for p in m.data.data_points]
            os._exit(int([p.value for p in points] != [0]))
        assert os.waitpid(child, 0)[1] == 0
        slot.settle()
        assert [s.name for s in spans.get_finished_spans()] == ["penstock.attempt", "chat parent"]
        """,
        HOST,
    )
