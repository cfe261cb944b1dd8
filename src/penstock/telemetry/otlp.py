"""Encodes our spans as OTLP, and has the SDK's exporter send them.

The exporter's own encoder makes a protobuf message of each attribute, in Python: 60 us a span. Here
an attribute that was met lately is a look-up.

Source:
    github.com/open-telemetry/opentelemetry-proto 1.x, trace/v1/trace.proto;
    protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from penstock.telemetry.own_spans import OwnSpan
from penstock.telemetry.spans import Attributes

_KEPT = 4096
"""How many attributes are kept; ids and counts of tokens come and go, names and routes stay."""
_LONGEST_KEPT = 200
"""Characters of one that is kept: callers write models and tenants, and could fill the memory."""
_TIMES = Struct("<BQBQ")
_FIXED64, _FIXED32, _DOUBLE = Struct("<BQ"), Struct("<I"), Struct("<d")
_LOCAL, _REMOTE = (b"\x85\x01" + _FIXED32.pack(flags) for flags in (0x100, 0x300))
"""Span.flags: whether it is known that the parent is remote, and whether it is."""
_CLIENT = b"\x30\x03"
_UNSET, _ERROR = b"\x7a\x00", b"\x7a\x02\x18\x02"


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sized(body: bytes) -> bytes:
    """Return a length-delimited field without its tag."""
    size = len(body)
    return bytes((size,)) + body if size < 0x80 else _varint(size) + body


def _text(text: str) -> bytes:
    return _sized(text.encode("utf-8", "replace"))


def _any_value(value: Any) -> bytes:
    """Return an AnyValue; ours are texts, truths and numbers, a sampler's may be more."""
    if isinstance(value, str):
        found = b"\x0a" + _text(value)
    elif isinstance(value, bool):
        found = b"\x10" + bytes((value,))
    elif isinstance(value, int):
        found = b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    elif isinstance(value, float):
        found = b"\x21" + _DOUBLE.pack(value)
    elif isinstance(value, bytes):
        found = b"\x3a" + _sized(value)
    elif isinstance(value, Mapping):
        pairs = (b"\x0a" + _key_value(str(key), each) for key, each in value.items())
        found = b"\x32" + _sized(b"".join(pairs))
    elif isinstance(value, Sequence):
        found = b"\x2a" + _sized(b"".join(b"\x0a" + _any_value(each) for each in value))
    else:
        found = b""
    return _sized(found)


def _key_value(key: str, value: Any) -> bytes:
    return _sized(b"\x0a" + _text(key) + b"\x12" + _any_value(value))


_kept = lru_cache(_KEPT, typed=True)(_key_value)


@lru_cache(_KEPT)
def _before_double(key: str) -> bytes:
    """Return a KeyValue up to its 8 last bytes."""
    name = b"\x0a" + _text(key) + b"\x12\x09\x21"
    return _varint(len(name) + 8) + name


def _attributes(tag: bytes, attributes: Attributes) -> bytes:
    parts = []
    for key, value in attributes.items():
        parts.append(tag)
        if type(value) is float:
            parts += _before_double(key), _DOUBLE.pack(value)
        elif isinstance(value, (bool, int)) or (type(value) is str and len(value) <= _LONGEST_KEPT):
            parts.append(_kept(key, value))
        else:
            parts.append(_key_value(key, value))
    return b"".join(parts)


def _event(at_ns: int, name: str, attributes: Attributes) -> bytes:
    facts = _attributes(b"\x1a", attributes)
    return _sized(b"".join((_FIXED64.pack(0x09, at_ns), b"\x12", _text(name), facts)))


def encoded(span: OwnSpan) -> bytes:
    """Return a Span's message."""
    trace = span.trace
    parts = [
        b"\x0a\x10", trace.number.to_bytes(16), b"\x12\x08", span.number.to_bytes(8),
    ]  # fmt: skip
    if trace.state:
        parts += b"\x1a", _text(trace.state)
    if span.parent:
        parts += b"\x22\x08", span.parent.to_bytes(8)
    parts += b"\x2a", _text(span.name), _CLIENT
    parts.append(_TIMES.pack(0x39, span.start_ns, 0x41, span.end_ns))
    parts.append(_attributes(b"\x4a", span.attributes))
    for event in span.events:
        parts += b"\x5a", _event(*event)
    if span.happened > len(span.events):
        parts += b"\x60", _varint(span.happened - len(span.events))
    parts.append(_ERROR if span.failed else _UNSET)
    parts.append(_REMOTE if span.remote else _LOCAL)
    return b"".join(parts)


class OtlpSpans(SpanExporter):
    """Sends our spans by an exporter of the SDK's.

    Args:
        exporter: of OTLP over HTTP.
        resource: what made the spans.

    """

    def __init__(self, exporter: SpanExporter, resource: Resource) -> None:
        """Encode what all spans have in common, by the exporter's own encoder."""
        self._exporter = exporter
        self._send = sender_of(exporter)
        tracers = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        span = tracers.get_tracer("penstock").start_span("")
        assert isinstance(span, ReadableSpan)
        (group,) = encode_spans([span]).resource_spans
        (scope,) = group.scope_spans
        scope.ClearField("spans")
        self._scope = scope.SerializeToString()
        group.ClearField("scope_spans")
        self._resource = group.SerializeToString()

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Send them; each an `OwnSpan`."""
        scope = [self._scope]
        for span in spans:
            scope += b"\x12", _sized(encoded(span))
        group = self._resource + b"\x12" + _sized(b"".join(scope))
        assert self._send is not None
        sent = self._send(b"\x0a" + _sized(group))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """See the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See the exporter."""
        return self._exporter.force_flush(timeout_millis)


def sender_of(exporter: SpanExporter) -> Callable[[bytes], Any] | None:
    """Return what sends encoded bytes for an exporter, with its retries; None if it has none such.

    It has no public name. Where a release has moved it, spans are the SDK's again.
    """
    if type(exporter) is not OTLPSpanExporter:
        return None
    return getattr(getattr(exporter, "_client", None), "export", None)
