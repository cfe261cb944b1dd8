"""Follows a reply's bytes on their way to the caller, and ends the slot by what they say."""

import math
from typing import Any

from penstock.integrations.http.plan import Plan
from penstock.runtime.slot import Hold
from penstock.wire.encoding import plain
from penstock.wire.usage import Usage, usage_of_reply
from penstock.wire.usage_tap import UsageTap, usage_tap

_LENGTHS = (len("content-type"), len("content-encoding"))
MAX_KEPT_BYTES = 64 << 20
"""A longer reply is passed on all the same, but its usage is not read."""


class ReplyFollower:
    """Told each chunk, and the end; ends the slot exactly once.

    The driver looks after it (`runtime.unread`): where nobody reads, its slot is given back.

    Args:
        slot: held while the reply comes.
        plan: of the request.
        response: the library's response, for its headers.

    """

    __slots__ = (
        "__weakref__",
        "_encoding",
        "_events",
        "_kept",
        "_kept_bytes",
        "_kind",
        "_ok",
        "_slot",
        "_unread",
        "idle_since",
        "look_s",
    )

    def __init__(self, slot: Hold, plan: Plan, response: Any) -> None:
        """Choose how to read: as events, as one JSON object, or not at all."""
        headers = response.headers
        kind, encoding = "", ""
        for raw_name, value in headers.raw:  # one pass; a look-up each would be two, and dearer
            if len(raw_name) not in _LENGTHS:
                continue
            name = raw_name.lower()
            if name == b"content-type":
                kind = value.decode("latin-1")
            elif name == b"content-encoding":
                encoding = value.decode("latin-1").lower()
        self._encoding = encoding
        self._slot = slot
        self._kind = plan.endpoint.kind
        self._ok = response.status_code < 400
        self._events: UsageTap | None = None
        self._kept: list[bytes] | None = None
        self._kept_bytes = 0
        self._unread = plan.outlet.driver.unread
        self.idle_since, self.look_s = self._unread.now(), 0.0
        self._unread.watch(self)
        if kind.startswith("text/event-stream"):
            self._events = usage_tap(self._kind, encoding, is_stream=True)
        elif self._ok:
            self._kept = []

    def awaited(self) -> None:
        """Somebody awaits the next chunk."""
        self.idle_since = math.inf

    def chunk(self, chunk: bytes) -> None:
        """Read one chunk of the body, as it came over the wire."""
        self.idle_since = self._unread.now()
        if self._events is not None:
            self._events.feed(chunk)
            if self._events.started:
                self._slot.first_token()
            if self._events.finished and not self._slot.ended:
                # Not at the last byte: some callers (LiteLLM) stop here and close nothing.
                self._slot.settle(self._events.usage())
        elif self._kept is not None:
            self._kept_bytes += len(chunk)
            if self._kept_bytes > MAX_KEPT_BYTES:
                self._kept = None
            else:
                self._kept.append(chunk)

    def whole(self, content: bytes) -> None:
        """Take a body that the inner transport has read and decoded already (a cache, a mock)."""
        self._encoding = ""
        if self._events is not None:
            self._events = usage_tap(self._kind, "", is_stream=True)
        self.chunk(content)
        self.complete()

    def abandon(self) -> bool:
        """Give the slot back, though the body may be read on; False if it has gone already."""
        held = not self._slot.ended
        self._slot.cancel()
        return held

    def complete(self) -> None:
        """The body has ended by itself."""
        self._unread.forget(self)
        if self._slot.ended:
            return
        if not self._ok:
            self._slot.fail(upstream_fault=False)
        else:
            self._slot.settle(self._usage())

    def broke(self) -> None:
        """The upstream broke in the middle of the body."""
        self._unread.forget(self)
        self._slot.fail(upstream_fault=True)

    def closed(self) -> None:
        """The caller closed the body, perhaps before its end; harmless after it."""
        self._unread.forget(self)
        self._slot.cancel()

    def _usage(self) -> Usage | None:
        if self._events is not None:
            return self._events.usage()
        if self._kept is None:
            return None
        body = b"".join(self._kept)
        return usage_of_reply(self._kind, plain(body, self._encoding, MAX_KEPT_BYTES))
