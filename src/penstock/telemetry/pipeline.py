"""Providers of our own, set up by OpenTelemetry's environment variables.

For the sidecar, and for programs that have set up none.
"""

import atexit
import os
import re
import threading
from importlib.metadata import entry_points, version
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter

from penstock.errors import ConfigError
from penstock.telemetry import buckets
from penstock.telemetry.buckets import BucketReader, Buckets
from penstock.telemetry.own_spans import OwnSpans
from penstock.telemetry.spans import ApiSpans
from penstock.telemetry.spans_out import BoundedSpans
from penstock.telemetry.tracing import Telemetry
from penstock.telemetry.wanted import Signal

CLOSING_S = 5.0
"""How long the end of a process waits for a collector; what is not sent by then is lost."""
QUEUE_SIZE = "OTEL_BSP_MAX_QUEUE_SIZE"
_LIMIT = re.compile("OTEL_.*_LIMIT")
"""Variables that have spans cut, which the SDK's can be and ours cannot."""
_DEFAULT_QUEUE = 2048  # the specification's
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


class Pipeline:
    """Exports what the telemetry tells.

    Args:
        names: the exporters of each signal, of `wanted.exporters`.
        service: its `service.name` where the environment names none.

    Attributes:
        telemetry: what requests are shown to.

    Raises:
        ConfigError: an exporter that is not installed, or a number that is none.

    """

    def __init__(self, names: dict[Signal, list[str]], service: str) -> None:
        """Make the providers; nothing global is touched."""
        resource = _resource(service)
        limit = _queue_limit()
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporters = [_made("traces", name) for name in names.get("traces", ())]
        sending = _sending(exporters, resource)
        self._spans = [BoundedSpans(each, limit) for each in ([sending] if sending else exporters)]
        for each in self._spans:
            self._tracers.add_span_processor(each)
        spans = OwnSpans(self._tracers, self._spans[0].take) if sending else ApiSpans(self._tracers)
        readers = [BucketReader(_made("metrics", name)) for name in names.get("metrics", ())]
        self._meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        self.telemetry = Telemetry(
            spans, self._meters, make=buckets.made if buckets.wanted() else None
        )
        for reader in readers:
            reader.buckets = self._buckets
        atexit.register(self.close)

    @property
    def lost(self) -> dict[str, int]:
        """How many spans were lost, by reason."""
        return {
            "queue_full": sum(each.dropped for each in self._spans),
            "not_delivered": sum(each.undelivered for each in self._spans),
        }

    @property
    def queued(self) -> int:
        """How many spans wait to be sent."""
        return sum(each.queued for each in self._spans)

    def _buckets(self) -> list[Buckets]:
        made = list(self.telemetry.measured.histograms.values())
        return [each for each in made if isinstance(each, Buckets)]

    def close(self) -> None:
        """Send what waits, but no longer than `CLOSING_S`."""
        atexit.unregister(self.close)
        closing = threading.Thread(target=self._shut_down, name="penstock-otel-end", daemon=True)
        closing.start()
        closing.join(CLOSING_S)

    def _shut_down(self) -> None:
        self._tracers.shutdown()
        self._meters.shutdown()


def _resource(service: str) -> Resource:
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    ours = {} if named else {"service.name": service, "service.version": version("penstock")}
    return Resource.create(ours)


def _sending(exporters: list[SpanExporter], resource: Resource) -> SpanExporter | None:
    """Return what sends spans of our own; None if the SDK's are needed."""
    if len(exporters) != 1 or any(_LIMIT.fullmatch(name) for name in os.environ):
        return None
    try:
        from penstock.telemetry.otlp import OtlpSpans, sender_of
    except ModuleNotFoundError:  # the SDK and an exporter of another kind are installed alone
        return None
    return OtlpSpans(exporters[0], resource) if sender_of(exporters[0]) else None


def _queue_limit() -> int:
    said = os.environ.get(QUEUE_SIZE, "").strip() or str(_DEFAULT_QUEUE)
    if not said.isascii() or not said.isdigit() or not int(said):
        raise ConfigError(f"{QUEUE_SIZE}={said!r} must be a whole number, 1 or more")
    return int(said)


def _made(signal: Signal, name: str) -> Any:
    """Return the exporter of that name, as packages announce theirs."""
    entry = name
    if name == "otlp":
        upper = signal.upper()
        protocol = (
            os.environ.get(f"OTEL_EXPORTER_OTLP_{upper}_PROTOCOL")
            or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf"
        )
        entry = _PROTOCOLS.get(protocol, protocol)
    for found in entry_points(group=f"opentelemetry_{signal}_exporter", name=entry):
        return found.load()()
    raise ConfigError(
        f"OTEL_{signal.upper()}_EXPORTER={name!r}: no exporter {entry!r} is installed; "
        "pip install 'penstock[otel]' brings otlp over http/protobuf, and console"
    )
