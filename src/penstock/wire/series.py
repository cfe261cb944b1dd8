"""JSON objects one after another: lines (Ollama, Cohere), or a list's items as they come (Gemini).

Where a stream was asked for that is one, though not of server-sent events.
"""

import re
from collections.abc import Iterator
from typing import Any

from penstock.wire import jsonio
from penstock.wire.endpoint import Kind
from penstock.wire.sse import MAX_EVENT_BYTES
from penstock.wire.stream import StreamReader

_MARK = re.compile(rb'["{}]')
_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


class SeriesSplitter:
    """Feeds on chunks, yields each object; each byte is looked at once, however it comes.

    Attributes:
        found: how many objects have come whole.
        lost: True once one was too large to be kept; nothing is read any more.

    """

    __slots__ = ("_at", "_first", "_in_text", "_kept", "_last", "_level", "found", "lost")

    def __init__(self) -> None:
        """Start at the beginning of a body."""
        self._kept = b""  # from the beginning of an object that has not ended
        self._at = self._level = 0
        self._in_text = False
        self._first = self._last = b""  # of what stands outside of objects
        self.found = 0
        self.lost = False

    @property
    def goes_on(self) -> bool:
        """Whether another object begins behind the first: it is no single one."""
        return self.found > 1 or (self.found == 1 and (self._level > 0 or self._last == b","))

    @property
    def whole(self) -> bool:
        """Whether it may end here."""
        ends = (b"]",) if self._first == b"[" else (b"", b",", b"\x1e")
        return self.lost or (self.found > 0 and not self._level and self._last in ends)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield every object that this chunk completes."""
        if self.lost:
            return
        data, at, begins = self._kept + chunk, self._at, 0
        while at < len(data):
            if self._in_text:
                at = _TEXT.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing too
                if data[at : at + 1] != b'"':
                    break
                at, self._in_text = at + 1, False
            mark = _MARK.search(data, at)
            end = len(data) if mark is None else mark.end()
            if not self._level:
                self._between(data[at:end].rstrip(b"{"))
            at = end
            if mark is None:
                break
            if mark[0] == b'"':
                self._in_text = True
            elif mark[0] == b"{":
                begins = begins if self._level else mark.start()
                self._level += 1
            elif self._level:
                self._level -= 1
                if not self._level:
                    self.found += 1
                    self._last = b""
                    yield data[begins:at]
                    begins = at
        self._kept = data[begins:] if self._level else b""
        self._at = at - begins if self._level else 0
        if len(self._kept) > MAX_EVENT_BYTES:
            self._kept, self.lost = b"", True

    def _between(self, text: bytes) -> None:
        text = text.strip()
        if text:
            self._first = self._first or text[:1]
            self._last = text[-1:]


class SeriesReader(StreamReader):
    """Reads along as its base does, where the events are objects one after another."""

    __slots__ = ("_series",)

    def __init__(self, kind: Kind) -> None:
        """Start at the beginning of a reply."""
        super().__init__(kind)
        self._series = SeriesSplitter()

    @property
    def heard(self) -> bool:
        """True once an object has come whole."""
        return self._series.found > 0

    @property
    def whole(self) -> bool:
        """True if the stream may end here."""
        return self._series.whole

    def feed(self, chunk: bytes) -> None:
        """Read one chunk."""
        for data in self._series.feed(chunk):
            event = jsonio.lenient_object(data)
            if event is not None:
                self._take_object(event)

    def _take_object(self, event: dict[str, Any]) -> None:
        error = jsonio.error_of(event)
        if error is not None:
            self.failed(error)
        else:
            self.event(event)
