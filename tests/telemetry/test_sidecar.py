"""The sidecar joins its caller's trace, hands it on, and never waits for a collector."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from penstock.errors import ConfigError
from penstock.proxy.config import loads
from penstock.proxy.reload import needs_restart
from penstock.proxy.server import Running
from tests.listening import serving_http
from tests.proxy.sidecars import GOOD, HELLO, call, eventually, in_front_of, sidecar
from tests.telemetry.collector import Collector, collecting

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
CALLERS = {"traceparent": PARENT, "tracestate": "vendor=kept", "baggage": "user=the-secret"}
SECRET = {**HELLO, "messages": [{"role": "user", "content": "the-secret"}]}


class Provider:
    """Answers everything well, after as many 503 as it is told, and keeps the headers."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[dict[str, str]] = []
        self.refusals = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                provider.seen.append({k.lower(): v for k, v in self.headers.items()})
                provider.refusals -= 1
                body = b'{"error": {"message": "busy"}}' if provider.refusals >= 0 else GOOD
                self.send_response(503 if provider.refusals >= 0 else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.handler = Handler


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    with serving_http(made.handler) as port:
        made.url = f"http://127.0.0.1:{port}"
        yield made


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
        yield made


def test_the_callers_trace_goes_through_to_the_provider(
    provider: Provider, collector: Collector
) -> None:
    provider.refusals = 1
    with sidecar(in_front_of(provider.url)) as running:
        assert call(running.port, body=SECRET, headers=CALLERS).status == 200
        assert call(running.port).status == 200  # in no caller's trace
        eventually(lambda: len(collector.named("chat m")) == 2)
        eventually(lambda: len(collector.named("penstock.attempt")) == 3)
        eventually(lambda: "penstock.window" in collector.metrics)
        eventually(lambda: "penstock.queue.duration" in collector.metrics)

    ours, apart = sorted(collector.named("chat m"), key=lambda s: s.start_time_unix_nano)
    assert ours.trace_id.hex() == TRACE
    assert ours.parent_span_id.hex() == "b7ad6b7169203331"
    assert ours.trace_state == "vendor=kept"
    assert apart.trace_id.hex() != TRACE
    assert not apart.parent_span_id
    attempts = [a for a in collector.named("penstock.attempt") if a.trace_id == ours.trace_id]
    assert {a.parent_span_id for a in attempts} == {ours.span_id}
    sent = [seen["traceparent"] for seen in provider.seen]
    assert sent[:2] == [f"00-{TRACE}-{a.span_id.hex()}-01" for a in attempts]
    assert provider.seen[0]["tracestate"] == "vendor=kept"
    assert provider.seen[0]["baggage"] == CALLERS["baggage"]
    assert collector.services == {"penstock"}
    assert "gen_ai.client.operation.duration" in collector.metrics
    assert b"the-secret" not in collector.bytes


def test_without_a_word_nothing_is_exported_and_the_callers_trace_is_its_own(
    provider: Provider, collector: Collector
) -> None:
    with sidecar(in_front_of(provider.url) + "[otel]\nenabled = false\n") as running:
        assert call(running.port, headers=CALLERS).status == 200
        assert "penstock_otel" not in running.metrics()
    assert provider.seen[0]["traceparent"] == PARENT
    assert collector.bytes == b""


def test_a_stuck_collector_delays_no_call_and_its_losses_are_counted(
    provider: Provider, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    collector.held.clear()
    with sidecar(in_front_of(provider.url)) as running:
        for _ in range(12):
            assert call(running.port).status == 200
        page = running.metrics()
        lost = [line for line in page.splitlines() if 'spans{reason="queue_full"}' in line]
        assert float(lost[0].split()[1]) >= 12  # of 24 spans 4 wait and 4 are on their way
    collector.held.set()


def test_what_cannot_be_exported_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")
    with pytest.raises(ConfigError, match="OTEL_TRACES_EXPORTER='pigeon': no exporter 'pigeon' is"):
        Running(loads(in_front_of("http://127.0.0.1:9")))
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "many")
    with pytest.raises(ConfigError, match="OTEL_BSP_MAX_QUEUE_SIZE='many' must be a whole number"):
        Running(loads(in_front_of("http://127.0.0.1:9")))


def test_the_setting_is_looked_at_once() -> None:
    assert needs_restart("otel.enabled")
