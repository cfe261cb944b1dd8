"""Which headers travel on, up and down. Names are lower case throughout."""

from collections.abc import Iterable
from dataclasses import dataclass

Header = tuple[bytes, bytes]
Head = dict[bytes, bytes]
"""A request's headers by name, the first of several."""

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""RFC 9110 section 7.6.1: for one connection only, never relayed."""

_OURS = frozenset((b"host", b"content-length", b"expect", b"accept-encoding"))
CREDENTIALS = frozenset((b"authorization", b"x-api-key", b"api-key"))
TRACE_CONTEXT = frozenset(("traceparent", "tracestate"))
"""W3C Trace Context, as text."""
NOT_UP = HOP_BY_HOP | _OURS
NOT_UP_OWN_KEY = NOT_UP | CREDENTIALS


def one(headers: Iterable[Header], name: bytes) -> bytes | None:
    """Return a header's value, the first if there are several; None if absent."""
    for key, value in headers:
        if key == name:
            return value
    return None


def upward(
    headers: Iterable[Header], *, keep_credentials: bool, as_plain: bool = False
) -> list[tuple[str, str]]:
    """Return the caller's headers as they go upstream, a character for each byte.

    Our own `x-penstock-*` hints stay here, and so does `accept-encoding`: we ask for the plain
    bytes, because usage is read from them while they pass. So does `content-encoding` where the
    body goes as plain bytes.
    """
    drop = NOT_UP if keep_credentials else NOT_UP_OWN_KEY
    named: frozenset[bytes] = frozenset()
    kept: list[Header] = []
    for name, value in headers:
        if name in drop:
            if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
                named |= listed(value)
        elif not (name.startswith(b"x-penstock-") or (as_plain and name == b"content-encoding")):
            kept.append((name, value))
    if named:
        kept = [item for item in kept if item[0] not in named]
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in kept]


def without_trace(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers that go upstream, without the caller's trace context: ours goes on."""
    return [each for each in headers if each[0] not in TRACE_CONTEXT]


@dataclass(slots=True)
class Downward:
    """An upstream's headers, read in one pass, as every answer pays for it.

    Attributes:
        kept: what goes back to the caller; nobody else's `x-penstock-*` gets through.
        is_stream: whether server-sent events follow.
        states_limits: whether rate-limit headers may be among them.
        encoding: how the body is compressed; empty if it is not.

    """

    kept: list[Header]
    is_stream: bool
    states_limits: bool
    encoding: str


def downward(headers: list[Header]) -> Downward:
    """Return an upstream's headers as they go back, and what the relay wants to know of them."""
    is_stream = states_limits = False
    encoding = ""
    kept: list[Header] = []
    named: frozenset[bytes] | None = None
    for item in headers:
        name, value = item
        if name in HOP_BY_HOP:
            if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
                named = listed(value)
            continue
        if name == b"content-type":
            is_stream = value.startswith(b"text/event-stream")
        elif name == b"content-encoding":
            encoding = value.decode("latin-1").lower()
        elif b"ratelimit" in name:
            states_limits = True
        elif name.startswith(b"x-penstock-"):
            continue
        kept.append(item)
    if named:
        kept = [item for item in kept if item[0] not in named]
    return Downward(kept, is_stream, states_limits, encoding)


def text_headers(headers: list[Header]) -> dict[str, str]:
    """Return headers as text, for the wire readers; the first of several counts."""
    found: dict[str, str] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return found


def our_headers(id_: str, decision: str, queued_s: float) -> list[Header]:
    """Return what penstock says on every scheduled answer."""
    return [
        (b"x-penstock-id", id_.encode()),
        (b"x-penstock-decision", decision.encode()),
        (b"x-penstock-queue-ms", b"%d" % round(queued_s * 1000)),
    ]


def listed(value: bytes) -> frozenset[bytes]:
    """Return the header names that a Connection header lists, in lower case."""
    return frozenset(token.strip().lower() for token in value.split(b","))
