"""Splits a stream of bytes into server-sent events, wherever the chunks were cut."""

from collections.abc import Iterator

from penstock.wire.usage import Ends

MAX_EVENT_BYTES = 1 << 20
"""Of an event larger than this only the ends are kept (the relay passes it on all the same)."""
_BOM = b"\xef\xbb\xbf"
_LINE_BYTES = 33
"""What Python keeps of an empty line: an event of millions of them is large too."""


class SseSplitter:
    """Feeds on chunks, yields each event's data; each byte is looked at once, however it comes.

    Understands LF, CRLF and CR line ends, comments, data on several lines and the event's name,
    which both vendors repeat inside its data; the other fields are left alone.

    Source:
        WHATWG HTML Living Standard, section 9.2.6, "Interpreting an event stream".

    Attributes:
        name: of the event that was yielded last; empty if it has none.
        heard: True once an event or a comment has come whole: less is of no use to a client.
        lost: True once an event was too large to be read whole.

    """

    __slots__ = (
        "_data", "_data_bytes", "_long", "_many", "_name", "_rest", "_rest_bytes", "_skip_lf",
        "heard", "lost", "name",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest: list[bytes] = []  # of a line that has not ended
        self._rest_bytes = 0
        self._long: Ends | None = None  # in its place, once it is too long
        self._data: list[bytes] = []  # of an event that has not ended
        self._data_bytes = 0
        self._many: Ends | None = None  # in its place, once they are too many
        self._skip_lf = False
        self._name = self.name = b""  # of the event that has not ended, and of the last
        self.heard = False
        self.lost = False

    def feed(self, chunk: bytes) -> Iterator[bytes | Ends]:
        """Yield the data of every event that this chunk completes; of a large one its ends."""
        if not chunk:
            return
        if self._is_one_event(chunk):  # as most come; it takes a quarter of the time
            self.heard, self.name = True, b""
            yield chunk[6:-2]
            return
        whole, text = chunk, chunk[1:] if self._skip_lf and chunk[0] == 10 else chunk
        # A CR at the chunk's end may be half of a CRLF.
        self._skip_lf = whole.endswith(b"\r")
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        if lines and self._long is not None:
            self._long.feed(lines[0])
            if self._long.head.startswith(b"data:"):
                yield self._long
            self._long = None
            del lines[0]
        elif lines and self._rest:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest.clear()
            self._rest_bytes = 0
        for line in lines:
            if line:
                self._take(line)
                continue
            self.heard = True
            self.name, self._name = self._name, b""
            if self._many is not None:
                yield self._many
                self._many = None
            elif self._data:
                yield b"\n".join(self._data) if len(self._data) > 1 else self._data[0]
                self._data.clear()
            self._data_bytes = 0
        if rest:
            self._keep(rest)

    def _is_one_event(self, chunk: bytes) -> bool:
        """Return whether a chunk is one event with its data on one line, and nothing is kept."""
        return (
            chunk.startswith(b"data: ")
            and chunk.endswith(b"\n\n")
            and chunk.find(b"\n") == len(chunk) - 2 <= MAX_EVENT_BYTES
            and b"\r" not in chunk
            and not (self._rest or self._data or self._skip_lf or self._name)
            and self._long is self._many is None
        )

    def _keep(self, rest: bytes) -> None:
        """Keep a piece of a line that has not ended."""
        if self._long is not None:
            self._long.feed(rest)
            return
        self._rest.append(rest)
        self._rest_bytes += len(rest)
        if self._rest_bytes > MAX_EVENT_BYTES:
            self._long = self._only_ends(self._rest)
            self._rest_bytes = 0

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            data = line[6:] if line[5:6] == b" " else line[5:]
            if self._many is not None:
                self._many.feed(data)
                return
            self._data.append(data)
            self._data_bytes += len(data) + _LINE_BYTES
            if self._data_bytes > MAX_EVENT_BYTES and len(self._data) > 1:
                self._many = self._only_ends(self._data)
        elif line.startswith(b"event:"):
            self._name = line[6:].strip()
        elif line.startswith(b":"):
            self.heard = True
        elif line.startswith(_BOM):
            self._take(line.removeprefix(_BOM))

    def _only_ends(self, pieces: list[bytes]) -> Ends:
        """Return the ends of what is too large, and drop it."""
        self.lost = True
        ends = Ends()
        ends.feed(b"".join(pieces))
        pieces.clear()
        return ends
