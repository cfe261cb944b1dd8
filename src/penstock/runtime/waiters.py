"""How the scheduler's word reaches a coroutine or a thread, from whichever thread it comes."""

import asyncio
import threading

from penstock.core.events import Decision, Defer, Dispatch, Reject

Word = Dispatch | Reject


class AsyncWaiter:
    """Waits in a coroutine. Made and awaited on one event loop; told from anywhere."""

    __slots__ = ("_first", "_future", "_thread", "_word", "loop", "refused")

    def __init__(self) -> None:
        """Belong to the running loop.

        Raises:
            RuntimeError: no asyncio loop runs here.

        """
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "no asyncio event loop runs in this thread: penstock's async clients and gates "
                "need one; is this trio? Use penstock.client() or the sync gate in a worker "
                "thread, or the sidecar with a plain client"
            ) from None
        self._thread = threading.get_ident()
        self._future: asyncio.Future[None] | None = None
        self._word: Word | BaseException | None = None
        self._first = True
        self.refused = False

    def deliver(self, action: Decision, *, first: bool) -> bool:
        """Take the word; False if the loop is closed and the coroutine with it."""
        if isinstance(action, Defer):
            return True
        self._first = first
        self.refused = isinstance(action, Reject)
        return self._hand_over(action)

    def fail(self, error: BaseException) -> None:
        """Raise in the coroutine."""
        self._hand_over(error)

    async def word(self) -> Word:
        """Return the next word; at once, without a turn of the loop, if it is there already.

        Raises:
            ProtocolError: the scheduler could not take the event that was to be answered.

        """
        if self._word is None:
            self._future = self.loop.create_future()
            try:
                await self._future
            finally:
                self._future = None
        elif not self._first:
            # Those who were dispatched before us have still to wake up; let them send first.
            await asyncio.sleep(0)
        word, self._word = self._word, None
        return _said(word)

    def _hand_over(self, word: Word | BaseException) -> bool:
        """Wake the coroutine on its own loop; return False if that loop is closed."""
        if self.loop.is_closed():
            return False
        if threading.get_ident() == self._thread:
            self._set(word)
            return True
        try:
            self.loop.call_soon_threadsafe(self._set, word)
        except RuntimeError:  # closed in this moment
            return False
        return True

    def _set(self, word: Word | BaseException) -> None:
        self._word = word
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class ThreadWaiter:
    """Waits in a plain thread."""

    __slots__ = ("_told", "_word", "refused")
    loop: asyncio.AbstractEventLoop | None = None

    def __init__(self) -> None:
        """Nothing has been said yet."""
        # A bare lock, free when there is a word: an Event is a lock, a condition and a queue.
        self._told = threading.Lock()
        self._told.acquire()
        self._word: Word | BaseException | None = None
        self.refused = False

    def deliver(self, action: Decision, *, first: bool) -> bool:
        """Hand the scheduler's decision to the thread; a deferral goes on waiting."""
        if isinstance(action, Defer):
            return True
        self.refused = isinstance(action, Reject)
        self._set(action)
        return True

    @property
    def told(self) -> bool:
        """True if there is a word."""
        return not self._told.locked()

    def fail(self, error: BaseException) -> None:
        """Raise in the thread."""
        self._set(error)

    def word(self) -> Word:
        """Block until the next word and return it.

        Raises:
            ProtocolError: the scheduler could not take the event that was to be answered.

        """
        self._told.acquire()
        word, self._word = self._word, None
        return _said(word)

    def _set(self, word: Word | BaseException) -> None:
        # Only whoever holds the driver's turn comes here, so nobody else frees it in between.
        self._word = word
        if self._told.locked():
            self._told.release()


def _said(word: Word | BaseException | None) -> Word:
    if isinstance(word, BaseException):
        raise word
    assert word is not None, "woken without a word"
    return word


Waiter = AsyncWaiter | ThreadWaiter
"""Somebody who waits for the scheduler's word about one request.

`deliver` takes a word, and `fail` that there will be none; `loop` is that of a coroutine, and
`refused` says that the word is the last, also to a caller that leaves before it is heard.
"""
