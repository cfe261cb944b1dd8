"""Reads a copy of a reply while it passes, whatever form and encoding it has."""

from collections.abc import Callable
from typing import Any

from penstock.wire.encoding import READABLE, Inflater, codings_of
from penstock.wire.endpoint import NOT_ONLY_JSON, Kind
from penstock.wire.series import SeriesReader
from penstock.wire.stream import StreamReader
from penstock.wire.usage import UNKNOWN, Ends, Usage
from penstock.wire.verdict import Verdict, verdict_of_reply

INFLATED_MAX_BYTES = 64 << 20
"""Of one stream: nothing of it is kept, so this bounds the time that a bomb may take (0.3 s); a
million tokens one by one are as much."""

INFLATED_AT_ONCE = 4 << 20
"""Of one piece of it: 256 kB of a bomb are 38 MB of events, which took 4 s. A writer that packs
each event sends some hundred bytes at once, one that packs all of them 15 times less than this."""

KEPT_BYTES = 1 << 20
"""How much of a reply that is no stream is kept, to be judged whole."""


class UnreadableTap:
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


class WholeReply:
    """A reply that is one JSON object: kept up to a bound and judged; of a larger one the ends."""

    started = False
    finished = False
    heard = True
    error = None

    def __init__(self, kind: Kind) -> None:
        """Start at the beginning of a reply."""
        self._kind = kind
        self._pieces: list[bytes] = []
        self._size = 0
        self._ends: Ends | None = None

    @property
    def whole(self) -> bool:
        """True if it holds what its endpoint returns, or ends as JSON does where it is large."""
        if self._ends is not None:
            return self._ends.closed or self._kind in NOT_ONLY_JSON
        return self._verdict().good

    def feed(self, chunk: bytes) -> None:
        """Keep one chunk."""
        if self._ends is not None:
            self._ends.feed(chunk)
            return
        self._pieces.append(chunk)
        self._size += len(chunk)
        if self._size > KEPT_BYTES:
            self._ends = Ends()
            for piece in self._pieces:
                self._ends.feed(piece)
            self._pieces.clear()

    def usage(self) -> Usage:
        """Return what it states."""
        return self._verdict().usage if self._ends is None else self._ends.usage(self._kind)

    def _verdict(self) -> Verdict:
        return verdict_of_reply(self._kind, 200, b"".join(self._pieces))


class Inflated:
    """A compressed reply, read as its plain bytes; what cannot be inflated counts as unread."""

    started: bool
    finished: bool
    heard: bool
    whole: bool
    error: dict[str, Any] | None
    usage: Callable[[], Usage]

    def __init__(self, inner: StreamReader | WholeReply, coding: str) -> None:
        """Let `inner` read the plain bytes."""
        self._inner = inner
        self._inflater = Inflater(coding, INFLATED_MAX_BYTES)

    def feed(self, chunk: bytes) -> None:
        """Inflate and read one chunk."""
        left_bytes = INFLATED_AT_ONCE
        for piece in self._inflater.feed(chunk):
            left_bytes -= len(piece)
            if left_bytes < 0:
                self._inflater.failed = True
                return
            self._inner.feed(piece)

    def __getattr__(self, name: str) -> Any:
        return getattr(UnreadableTap() if self._inflater.failed else self._inner, name)


UsageTap = StreamReader | WholeReply | Inflated | UnreadableTap
"""Reads along: `feed` it every chunk that is relayed. For the properties see `StreamReader`."""


def usage_tap(kind: Kind, encoding: str, *, is_stream: bool, is_series: bool = False) -> UsageTap:
    """Return who reads a reply that is relayed piece by piece.

    Args:
        kind: what was asked for.
        encoding: the reply's content encoding; empty if it has none.
        is_stream: whether it comes as server-sent events.
        is_series: whether it comes as JSON objects, one after another.

    """
    inner: StreamReader | WholeReply = StreamReader(kind) if is_stream else WholeReply(kind)
    if is_series:
        inner = SeriesReader(kind)
    codings = codings_of(encoding) if encoding else ()
    if not codings:
        return inner
    known = len(codings) == 1 and codings[0] in READABLE
    return Inflated(inner, codings[0]) if known else UnreadableTap()
