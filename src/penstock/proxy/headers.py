"""Which headers travel on. Names are lower case throughout."""

from collections.abc import Iterable

Header = tuple[bytes, bytes]

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
NOT_UP = HOP_BY_HOP | _OURS
NOT_UP_OWN_KEY = NOT_UP | CREDENTIALS


def one(headers: Iterable[Header], name: bytes) -> bytes | None:
    """Return a header's value, the first if there are several; None if absent."""
    for key, value in headers:
        if key == name:
            return value
    return None


def upward(headers: Iterable[Header], *, keep_credentials: bool) -> bytes:
    """Return the caller's headers as they go upstream, ready for the wire.

    Our own `x-penstock-*` hints stay here, and so does `accept-encoding`: we ask for the plain
    bytes, because usage is read from them while they pass.
    """
    drop = NOT_UP if keep_credentials else NOT_UP_OWN_KEY
    named: frozenset[bytes] = frozenset()
    parts: list[bytes] = []
    for name, value in headers:
        if name in drop:
            if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
                named |= listed(value)
        elif not name.startswith(b"x-penstock-"):
            parts.append(name + b": " + value + b"\r\n")
    if named:
        parts = [part for part in parts if part.split(b":", 1)[0] not in named]
    return b"".join(parts)


def listed(value: bytes) -> frozenset[bytes]:
    """Return the header names that a Connection header lists, in lower case."""
    return frozenset(token.strip().lower() for token in value.split(b","))


def credential(headers: Iterable[Header]) -> bytes | None:
    """Return the key that a caller presents, or None."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer" and key.strip():
                return key.strip()
        elif name in (b"x-api-key", b"api-key") and value.strip():
            return value.strip()
    return None
