"""What is read of an answer before its caller sees any of it."""

import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from penstock.integrations.http.plan import Plan
from penstock.wire.encoding import PLAIN_MAX_BYTES, can_read, plain
from penstock.wire.opening import OPENING_BYTES, OPENING_S, Form, Opening, verdict_of_opening
from penstock.wire.refusal import ERROR_BYTES, ERROR_S
from penstock.wire.usage_tap import UnreadableTap, UsageTap, usage_tap
from penstock.wire.verdict import GOOD_STATUSES, Verdict, is_event_stream


class Prefix:
    """What has come of an answer's body, up to where it says enough.

    That is the end, of an error as much as is read of one, of a stream its first content.

    Args:
        response: whose body it is.
        plan: of the request.

    Attributes:
        encoding: what the body is packed by; empty if it is not. A look-up costs 3 us.
        is_error: whether it is an error's, which says enough wherever it ends.
        pieces: what has come.
        tap: reads a stream along; None for whatever is none.
        fault: what speaks against a stream whose beginning was held back; None if nothing does.

    """

    __slots__ = (
        "_at_hand", "_guard", "_judged", "_kind", "_most_bytes", "_opening",
        "_size_bytes", "_until", "encoding", "fault", "is_error", "pieces", "tap",
    )  # fmt: skip

    def __init__(self, response: Any, plan: Plan) -> None:
        """Begin with nothing."""
        headers = response.headers
        self._guard = plan.outlet.driver.guard
        self._kind = plan.endpoint.kind
        self.encoding = headers.get("content-encoding", "").lower()
        self._opening = Opening(
            self._kind,
            self.encoding,
            is_events=is_event_stream(headers.get("content-type", "")),
            streams=plan.spec.read().streams,
        )
        self.tap: UsageTap | None = None
        self.fault: Verdict | None = None
        self._judged = False
        self.is_error = response.status_code not in GOOD_STATUSES
        self._most_bytes = ERROR_BYTES if self.is_error else PLAIN_MAX_BYTES
        self._until = time.monotonic() + ERROR_S if self.is_error else math.inf
        self._size_bytes = 0
        self._at_hand: bool = response.is_closed  # a cache's, a mock's
        self.pieces: list[bytes] = []

    @property
    def left_s(self) -> float:
        """How long the next piece of a stream may be waited for; inf for whatever else comes."""
        return math.inf if self.tap is None else max(0.0, self._until - time.monotonic())

    def take(self, chunk: bytes) -> bool:
        """Take what came next; return whether it is enough."""
        self.pieces.append(chunk)
        self._size_bytes += len(chunk)
        if not self.is_error and self.tap is None:
            self._opening.take(chunk)
            if self._opening.form.is_stream:
                chunk = self._begin()
            elif self._opening.passes:
                return True
        if self.tap is not None and self._says_enough(chunk):
            return not self._at_hand
        return self._size_bytes > self._most_bytes or time.monotonic() > self._until

    def _begin(self) -> bytes:
        """Begin to read a stream; return what has come of it."""
        form = self._opening.form
        unread: UsageTap = UnreadableTap()
        self.tap = self._guard.run(
            "stream",
            lambda: usage_tap(
                self._kind,
                self.encoding,
                is_stream=form is Form.EVENTS,
                is_series=form is Form.SERIES,
            ),
            unread,
        )
        if not self._at_hand:
            self._most_bytes, self._until = OPENING_BYTES, time.monotonic() + OPENING_S
        return self.whole()

    def _says_enough(self, chunk: bytes) -> bool:
        """Read of a stream; return whether its content, its end or an error has come."""
        tap = self.tap
        assert tap is not None  # it is one

        def read() -> bool:
            tap.feed(chunk)
            return tap.started or tap.finished or tap.error is not None

        enough = self._guard.run("stream", read, None)
        if enough is None:
            self.tap = UnreadableTap()
        elif enough and not self._judged:
            self.fault, self._judged = self._verdict(ended=False), True
        return enough is not False

    def _verdict(self, *, ended: bool) -> Verdict | None:
        tap = self.tap
        if tap is None:
            return None
        return self._guard.run("stream", lambda: verdict_of_opening(tap, ended=ended), None)

    def cut(self, response: Any, ahead: Any) -> bytes | None:
        """Return what goes no further; let a reply go on as it comes, and return None."""
        if self.is_error:
            return self.begun(response)
        if self.fault is not None:
            return self.whole()
        if not self._at_hand:
            response.stream = Begun(self.pieces, ahead, response.stream)
        return None

    def ended(self) -> bytes:
        """Return the body, which has come whole."""
        if not self._judged:
            self.fault = self._verdict(ended=True)
        return self.whole()

    def begun(self, response: Any) -> bytes:
        """Return an error that goes no further: in plain, as nobody unpacks half a body."""
        body, headers = self.whole(), response.headers
        if can_read(self.encoding):
            body = plain(body, self.encoding)
            headers.pop("content-encoding", None)
            self.encoding = ""
        headers["content-length"] = str(len(body))
        return body

    @contextmanager
    def patience(self, request: Any) -> Iterator[None]:
        """Let the next piece of an error come no later than `ERROR_S`: it holds a slot.

        Both libraries look up a call's timeouts when they begin to read the body.
        """
        allowed = request.extensions.get("timeout")
        if not self.is_error or allowed is None:
            yield
            return
        read_s = allowed.get("read")
        shorter = ERROR_S if read_s is None else min(read_s, ERROR_S)
        request.extensions["timeout"] = {**allowed, "read": shorter}
        try:
            yield
        finally:
            request.extensions["timeout"] = allowed

    def whole(self) -> bytes:
        """Return what has come."""
        return b"".join(self.pieces)


class Begun:
    """A body of which some has been read, from its beginning.

    Args:
        pieces: what has been read.
        ahead: yields what comes after it.
        stream: is closed in the end.

    """

    def __init__(self, pieces: list[bytes], ahead: Any, stream: Any) -> None:
        """Hold all three."""
        self._pieces, self._ahead, self._stream = pieces, ahead, stream

    def __iter__(self) -> Iterator[bytes]:
        """Yield the chunks for a thread."""
        yield from self._pieces
        yield from self._ahead

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the chunks for a coroutine."""
        for piece in self._pieces:
            yield piece
        async for piece in self._ahead:
            yield piece

    def close(self) -> None:
        """Close the body, for a thread."""
        self._ahead.leave()
        self._stream.close()

    async def aclose(self) -> None:
        """Close the body, for a coroutine."""
        await self._ahead.leave()
        await self._stream.aclose()
