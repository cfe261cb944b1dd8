"""Follows a reply's bytes on their way to the caller, and ends the slot by what they say."""

import math
from typing import Any

from penstock.integrations.http.plan import Plan
from penstock.integrations.http.prefix import Prefix
from penstock.runtime.slot import Hold
from penstock.wire.refusal import RELAY, Meaning, meaning_of_error


class ReplyFollower:
    """Told each chunk, and the end; ends the slot exactly once. Nothing that it reads stops a byte.

    A reply that is no stream was judged whole (`attempt.judge`): here nothing is read of it.

    The driver looks after it (`runtime.unread`): where nobody reads, its slot is given back.

    Args:
        slot: held while the reply comes.
        plan: of the request.
        response: the library's response.
        prefix: what has been read of it: pieces that come again.

    """

    __slots__ = (
        "__weakref__",
        "_events",
        "_fed",
        "_guard",
        "_ok",
        "_slot",
        "_unread",
        "idle_since",
        "look_s",
    )

    def __init__(self, slot: Hold, plan: Plan, response: Any, prefix: Prefix) -> None:
        """Go on where the prefix ends."""
        self._slot = slot
        self._events, self._fed = prefix.tap, len(prefix.pieces)
        self._ok = response.status_code < 400
        self._guard = plan.outlet.driver.guard
        self._unread = plan.outlet.driver.unread
        self.idle_since, self.look_s = self._unread.now(), 0.0
        self._unread.watch(self)

    def awaited(self) -> None:
        """Somebody awaits the next chunk."""
        self.idle_since = math.inf

    def chunk(self, chunk: bytes) -> None:
        """Read one chunk of the body, as it came over the wire."""
        self.idle_since = self._unread.now()
        events = self._events
        if events is None:
            return
        try:
            if self._fed:
                self._fed -= 1
            else:
                events.feed(chunk)
            if events.started:
                self._slot.first_token()
            if events.finished and not self._slot.ended:
                # Not at the last byte: some callers (LiteLLM) stop here and close nothing.
                self._slot.settle(events.usage())
        except Exception as error:  # noqa: BLE001 - whatever it is, the bytes go through
            self._events = None
            self._guard.caught("stream", error)

    def whole(self) -> None:
        """Take a body that is at hand, and that the prefix has read to its end."""
        self._fed = 1
        self.chunk(b"")
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
        events = self._events
        error = None if events is None else events.error
        if not self._ok:
            self._slot.fail(upstream_fault=False)
        elif error is not None:
            otherwise: Meaning = RELAY
            meaning = self._guard.run("refusal", lambda: meaning_of_error(error), otherwise)
            self._slot.end_midway(meaning)
        elif events is not None and not self._guard.run("reply", lambda: events.whole, True):
            self.broke()  # cut, though the provider calls it an end
        else:
            usage = None if events is None else self._guard.run("reply", events.usage, None)
            self._slot.settle(usage)

    def broke(self) -> None:
        """The upstream broke in the middle of the body."""
        self._unread.forget(self)
        self._slot.fail(upstream_fault=True)

    def closed(self) -> None:
        """The caller closed the body, perhaps before its end; harmless after it."""
        self._unread.forget(self)
        self._slot.cancel()
