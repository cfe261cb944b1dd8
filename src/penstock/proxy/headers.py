"""Headers that travel on, up and down, and answers on their way to the caller.

Names of headers are lower case throughout.
"""

import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from penstock.wire.errors import MAX_RETRY_AFTER_S, OwnAnswer
from penstock.wire.verdict import is_event_stream
from penstock.wire.waits import retry_after_s

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
            is_stream = is_event_stream(value.decode("latin-1"))
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


def of_events(kept: list[Header]) -> list[Header]:
    """Return a stream's headers: its type, and that a server between is not to gather its events.

    nginx, and what understands its header, would hand them on once there are some kilobytes.
    """
    names = {name for name, _value in kept}
    return kept + [item for item in EVENT_HEADERS if item[0] not in names]


EVENT_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream"),
    (b"x-accel-buffering", b"no"),
)


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


Send = Callable[[dict[str, Any]], Awaitable[None]]

_WAITS = (b"retry-after", b"retry-after-ms", b"x-ms-retry-after-ms", b"x-should-retry")


@dataclass(slots=True)
class Kept:
    """An upstream's refusal, read whole, in case it becomes the caller's answer."""

    status: int
    headers: list[Header]
    body: bytes


async def send_whole(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    """Send a complete answer, its length stated."""
    headers = [item for item in headers if item[0] != b"content-length"]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_answer(send: Send, answer: OwnAnswer) -> None:
    """Send an answer of our own."""
    headers = [(k.encode(), v.encode("latin-1")) for k, v in answer.headers.items()]
    await send_whole(send, answer.status, headers, answer.body)


def saying(send: Send, header: Header) -> Send:
    """Return a way to send by which an answer has one more header."""

    async def send_more(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], header]}
        await send(message)

    return send_more


def without_encoding(headers: list[Header]) -> list[Header]:
    """Return an answer's headers for its plain bytes."""
    return [item for item in headers if item[0] != b"content-encoding"]


def without_advice(kept: Kept) -> Kept:
    """Return an upstream's answer without its own word on whether to try again."""
    headers = [item for item in kept.headers if item[0] != b"x-should-retry"]
    return Kept(kept.status, headers, kept.body)


def with_bounded_wait(kept: Kept) -> tuple[Kept, list[Header]]:
    """Return the refusal that penstock gave up on; whether to try again is the SDK's to say.

    Its next attempt waits for the scheduler like any other. Only a wait beyond the bound, which
    would stop a client for days, is left out, and the SDK is told not to try again; the provider's
    own wish stays readable in `x-penstock-upstream-retry-after-s`.
    """
    wait_s = retry_after_s(text_headers(kept.headers), wall_now=time.time())
    if wait_s is None or wait_s <= MAX_RETRY_AFTER_S:
        return kept, []
    kept = without_advice(kept)
    ours: list[Header] = [(b"x-should-retry", b"false")]
    headers = [item for item in kept.headers if item[0] not in _WAITS]
    ours.append((b"x-penstock-upstream-retry-after-s", b"%d" % math.ceil(wait_s)))
    return Kept(kept.status, headers, kept.body), ours


def is_ascii(headers: Iterable[tuple[str, str]]) -> bool:
    """Return whether a head may go out by itself: others wait for a body, be it empty."""
    return all(value.isascii() for _, value in headers)
