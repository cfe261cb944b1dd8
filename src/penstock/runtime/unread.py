"""Streamed replies whose readers have left without closing them.

Breaking out of a loop over an SDK's stream closes nothing: the stream, its iterator and the
response refer to each other, so only the cyclic garbage collector finds out, at some time. Until
then the reply holds its slot.
"""

import gc
import logging
import time
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

logger = logging.getLogger("penstock.runtime")

LOOK_S = 0.05
"""A reply that nobody has read from for so long may have been left, where others wait."""
COLLECTING_SHARE = 0.2
"""Full collections take no more than this share of a core, while somebody waits beside an idle
stream: one takes 60 ms in a small program with an SDK; of the young objects alone, 1 ms."""
YOUNG = 1
UNREAD_S = 60.0
"""A reader who takes longer than this over one piece is taken to have left. Long enough for a
person, or a call to another model, between two pieces; a tenth of the SDKs' own time-outs."""


class HeldReply(Protocol):
    """A streamed reply that holds a slot."""

    idle_since: float
    """Driver seconds when it was last read from; inf while somebody awaits its next piece."""
    look_s: float
    """For how long it must be idle before it is looked at; set by `UnreadReplies`."""

    def abandon(self) -> bool:
        """Give the slot back; False if it was given back already."""
        ...


class UnreadReplies:
    """The streamed replies that hold slots of one driver.

    Two looks: where somebody waits for a slot and a reply is idle, the garbage collector is asked
    whether anybody can still read it (and finalisers give its slot back); one that can be read, and
    is not for `limit_s`, loses its slot. Its reader may come back and read on all the same.
    """

    def __init__(self, now: Callable[[], float], limit_s: float = UNREAD_S) -> None:
        """Watch nothing yet; `now` tells driver seconds."""
        self.now = now
        self._limit_s = limit_s
        self._replies: WeakSet[HeldReply] = WeakSet()
        self._rests_until = 0.0
        self._told = False

    def watch(self, reply: HeldReply) -> None:
        """Watch a reply until its slot has ended."""
        reply.look_s = LOOK_S
        self._replies.add(reply)

    def forget(self, reply: HeldReply) -> None:
        """Watch it no longer."""
        self._replies.discard(reply)

    def look(self, *, wanted: bool) -> None:
        """Give back what nobody reads.

        Args:
            wanted: whether somebody waits for a slot.

        """
        if not self._replies:
            return
        now = self.now()
        idle = [(reply, now - reply.idle_since) for reply in list(self._replies)]
        for reply, idle_s in idle:
            if idle_s >= self._limit_s:
                self._abandon(reply, idle_s)
        suspects = WeakSet(reply for reply, idle_s in idle if idle_s >= reply.look_s)
        del idle
        if wanted and suspects:
            gc.collect(YOUNG)
        if wanted and suspects and now >= self._rests_until:
            for reply in suspects:  # who reads slowly is looked at seldom
                reply.look_s *= 2.0
            began = time.thread_time()
            gc.collect()
            self._rests_until = now + (time.thread_time() - began) / COLLECTING_SHARE

    def _abandon(self, reply: HeldReply, idle_s: float) -> None:
        self._replies.discard(reply)
        if reply.abandon() and not self._told:
            self._told = True
            logger.warning(
                "nobody has read from a streamed reply for %.0f s: its slot is given back, and the "
                "reply can be read on. Close streams that are left before their end (`async with`, "
                "`with` or close()); further ones are not logged",
                idle_s,
            )
