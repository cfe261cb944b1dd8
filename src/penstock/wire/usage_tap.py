"""Reads a copy of a reply while it passes, whatever form and encoding it has."""

from typing import Any, Protocol

from penstock.wire.encoding import READABLE, Inflater, codings_of
from penstock.wire.endpoint import Kind
from penstock.wire.stream import StreamReader
from penstock.wire.usage import UNKNOWN, Ends, Usage

INFLATED_MAX_BYTES = 1 << 30
"""Nothing of it is kept, so this bounds only the time that a bomb may take."""


class UsageTap(Protocol):
    """Reads along; give it every chunk that is relayed. For the properties see `StreamReader`."""

    @property
    def started(self) -> bool: ...  # noqa: D102
    @property
    def finished(self) -> bool: ...  # noqa: D102
    @property
    def heard(self) -> bool: ...  # noqa: D102
    @property
    def whole(self) -> bool: ...  # noqa: D102
    @property
    def error(self) -> dict[str, Any] | None: ...  # noqa: D102

    def feed(self, chunk: bytes) -> None:
        """Read one chunk."""

    def usage(self) -> Usage:
        """Return the best that is known now."""
        ...


class Unread:
    """A reply in an encoding that nobody here can read: nothing speaks against it."""

    started = True
    finished = False
    heard = True
    whole = True
    error = None

    def feed(self, chunk: bytes) -> None:
        """Do nothing."""

    def usage(self) -> Usage:
        """Return that it is unknown."""
        return UNKNOWN


class LargeReply:
    """A JSON reply that is too large to be kept: its ends are read for the usage."""

    started = False
    finished = False
    heard = True
    whole = True
    error = None

    def __init__(self, kind: Kind) -> None:
        """Start at the beginning of a reply."""
        self._kind = kind
        self._ends = Ends()

    def feed(self, chunk: bytes) -> None:
        """Keep the ends."""
        self._ends.feed(chunk)

    def usage(self) -> Usage:
        """Return what the ends say."""
        return self._ends.usage(self._kind)


class Inflated:
    """A compressed reply; once it cannot be inflated, it counts as unread."""

    def __init__(self, inner: UsageTap, coding: str) -> None:
        """Let `inner` read the plain bytes."""
        self._inner = inner
        self._inflater = Inflater(coding, INFLATED_MAX_BYTES)

    @property
    def _now(self) -> UsageTap:
        return Unread() if self._inflater.failed else self._inner

    @property
    def started(self) -> bool:
        """As the plain bytes say."""
        return self._now.started

    @property
    def finished(self) -> bool:
        """As the plain bytes say."""
        return self._now.finished

    @property
    def heard(self) -> bool:
        """As the plain bytes say."""
        return self._now.heard

    @property
    def whole(self) -> bool:
        """As the plain bytes say."""
        return self._now.whole

    @property
    def error(self) -> dict[str, Any] | None:
        """As the plain bytes say."""
        return self._now.error

    def feed(self, chunk: bytes) -> None:
        """Inflate and read one chunk."""
        for piece in self._inflater.feed(chunk):
            self._inner.feed(piece)

    def usage(self) -> Usage:
        """As the plain bytes say."""
        return self._now.usage()


def usage_tap(kind: Kind, encoding: str, *, is_stream: bool) -> UsageTap:
    """Return who reads a reply that is relayed piece by piece.

    Args:
        kind: what was asked for.
        encoding: the reply's content encoding; empty if it has none.
        is_stream: whether it comes as server-sent events.

    """
    inner: UsageTap = StreamReader(kind) if is_stream else LargeReply(kind)
    codings = codings_of(encoding)
    if not codings:
        return inner
    known = len(codings) == 1 and codings[0] in READABLE
    return Inflated(inner, codings[0]) if known else Unread()
