"""Reads on behind a request that offers an upgrade, which is answered as if it offered none.

aiohttp's parser drops what comes in one piece with such a request's end and behind it.
"""

import asyncio
import re
from typing import Any

from aiohttp import StreamReader, web


class OfferReader(web.RequestHandler):
    """aiohttp's side of a connection, given its bytes in pieces that end with each such request."""

    __slots__ = ("end_bytes", "held", "offer")

    def __init__(
        self, manager: web.Server, loop: asyncio.AbstractEventLoop, options: dict[str, Any]
    ) -> None:
        """Read nothing yet.

        Args:
            manager: counts what is answered.
            loop: runs it.
            options: aiohttp's own.

        """
        super().__init__(manager, loop=loop, **options)
        self.held = self.end_bytes = b""  # behind an offer, and the last bytes that were read
        self.offer: tuple[Any, StreamReader] | None = None  # an upgrade's, whose body is coming

    def take(self, data: bytes, *, begins: bool) -> None:
        """Parse what has come; of nothing, what was held back.

        Args:
            data: the bytes.
            begins: whether they begin a head.

        """
        if begins and not (self.held or self.offer) and not _OFFER.search(data):
            super().data_received(data)  # also b"": so aiohttp asks itself for what it holds back
        else:  # an offer may begin in one piece and end in another, behind whatever comes first
            self._take_in_pieces(self.held + data)

    def _take_in_pieces(self, data: bytes) -> None:
        """Let a piece end wherever a request may end that offers an upgrade."""
        self.held = b""
        super().data_received(b"")
        while data:
            if self._reading_paused or self._buffer_paused:  # the parser would join the pieces
                self.held = data
                return
            size, count = self._size_of_piece(data), self._request_count
            self.end_bytes = (self.end_bytes + data[:size])[-3:]
            super().data_received(data[:size])
            data = data[size:]
            if self._request_count != count:
                message, body = self._messages[-1]
                self.offer = (message, body) if getattr(message, "upgrade", False) else None
            if self.offer is not None and self.offer[1].is_eof():
                self.offer = None

    def _size_of_piece(self, data: bytes) -> int:
        """Heads and chunked bodies end in a blank line; how long another body is, its head says."""
        if self.offer is not None and not self.offer[0].chunked:
            message, body = self.offer
            return int(message.headers["content-length"]) - body.total_bytes
        known = len(self.end_bytes)
        end = (self.end_bytes + data).find(b"\r\n\r\n")
        return len(data) if end < 0 else end + 4 - known


_OFFER = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)
