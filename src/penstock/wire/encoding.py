"""Undoes gzip and deflate on a copy of what passes, for providers that compress unasked."""

import zlib
from collections.abc import Iterator

READABLE = frozenset(("gzip", "x-gzip", "deflate"))
PLAIN_MAX_BYTES = 16 << 20
"""A kilobyte of zeros can claim to be a gigabyte: beyond this nothing more is read."""

_PIECE_BYTES = 1 << 18
_ANY_HEADER = 47
"""zlib's word for "gzip or zlib, whichever it is"."""


class Inflater:
    """Reads a compressed body piece by piece.

    Attributes:
        failed: True once the bytes were no such thing, or too many; nothing is read any more.

    """

    __slots__ = ("_left_bytes", "_unzip", "failed")

    def __init__(self, at_most_bytes: int = PLAIN_MAX_BYTES) -> None:
        """Start at the beginning of a body."""
        self._unzip = zlib.decompressobj(_ANY_HEADER)
        self._left_bytes = at_most_bytes
        self.failed = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the plain bytes of a chunk, in pieces of bounded size."""
        while not self.failed:
            try:
                piece = self._unzip.decompress(data, _PIECE_BYTES)
            except zlib.error:
                self.failed = True
                return
            self._left_bytes -= len(piece)
            if self._left_bytes < 0:
                self.failed = True
                return
            yield piece
            data = self._unzip.unconsumed_tail
            if self._unzip.eof or (not data and len(piece) < _PIECE_BYTES):
                return


def plain(body: bytes, encoding: str) -> bytes:
    """Return a body without its content encoding; empty if nobody here can read it."""
    if encoding in ("", "identity"):
        return body
    if encoding not in READABLE:
        return b""
    inflater = Inflater()
    text = b"".join(inflater.feed(body))
    return b"" if inflater.failed else text
