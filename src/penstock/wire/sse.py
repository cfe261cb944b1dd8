"""Splits a stream of bytes into server-sent events, wherever the chunks were cut."""

from collections.abc import Iterator

from penstock.wire.usage import Ends

MAX_EVENT_BYTES = 1 << 20
"""Of an event larger than this only the ends are kept (the relay passes it on all the same)."""


class SseSplitter:
    """Feeds on chunks, yields each event's data.

    Understands LF, CRLF and CR line ends, comments and data on several lines; the other fields
    are left alone, since both vendors repeat the event's name inside its data.

    Source:
        WHATWG HTML Living Standard, section 9.2.6, "Interpreting an event stream".

    Attributes:
        heard: True once an event or a comment has come whole: less is of no use to a client.
        lost: True once an event was too large to be read whole.

    """

    __slots__ = ("_data", "_long", "_rest", "_skip_lf", "heard", "lost")

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest = b""
        self._data: list[bytes] = []
        self._long: Ends | None = None
        self._skip_lf = False
        self.heard = False
        self.lost = False

    def feed(self, chunk: bytes) -> Iterator[bytes | Ends]:
        """Yield the data of every event that this chunk completes; of a large one its ends."""
        if not chunk:
            return
        whole, chunk = chunk, chunk[1:] if self._skip_lf and chunk[0] == 10 else chunk
        # A CR at the chunk's end may be half of a CRLF.
        self._skip_lf = whole.endswith(b"\r")
        text = self._rest + chunk
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        if self._long is not None:  # it goes on up to the first line's end
            self._long.feed(lines[0] if lines else rest)
            if not lines:
                return
            if self._long.head.startswith(b"data:"):
                yield self._long
            self._long = None
            del lines[0]
        if len(rest) > MAX_EVENT_BYTES:
            self.lost = True
            self._long = Ends()
            self._long.feed(rest)
            rest = b""
        self._rest = rest
        for line in lines:
            if line:
                self._take(line)
                continue
            self.heard = True
            if self._data:
                yield b"\n".join(self._data) if len(self._data) > 1 else self._data[0]
                self._data.clear()

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b":"):
            self.heard = True
