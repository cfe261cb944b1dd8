"""Notices when a caller goes away, and stops the work for it."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Result = TypeVar("Result")


async def while_caller_listens(receive: Receive, work: Awaitable[Result]) -> Result | None:
    """Run `work`, and cancel it when the caller goes away; None then.

    Cancellation reaches whatever the work waits for (a place in the queue, a connection, the
    next bytes), and its own clean-up frees the slot and closes the upstream call.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("an ASGI application runs in a task: which server is this?")
    watch = _Watch(task)
    watcher = task.get_loop().create_task(watch.listen(receive))
    try:
        return await work
    except asyncio.CancelledError:
        if not watch.gone:
            raise
        task.uncancel()
        return None
    finally:
        watch.task = None
        watcher.cancel()


class _Watch:
    """Waits for the caller to go away."""

    __slots__ = ("gone", "task")

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self.task: asyncio.Task[Any] | None = task
        self.gone = False

    async def listen(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                if self.task is not None:
                    self.gone = True
                    self.task.cancel()
                return


class Patience:
    """Cancels tasks that take too long, by one look a second over all of them.

    A timer for every request would cost 3 us on each; being up to a second late is no matter
    where the span is a minute.
    """

    def __init__(self, span_s: float) -> None:
        """Allow each task so many seconds."""
        self._span_s = span_s
        self._since: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: "asyncio.Task[Any]") -> None:
        """Start a task's span."""
        loop = task.get_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(1.0, self._look, loop)

    def end(self, task: "asyncio.Task[Any]") -> bool:
        """End a task's span; True if it was cancelled for being late."""
        self._since.pop(task, None)
        if task in self._late:
            self._late.discard(task)
            return True
        return False

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        latest = loop.time() - self._span_s
        for task in [task for task, since in self._since.items() if since <= latest]:
            del self._since[task]
            self._late.add(task)
            task.cancel()
        if self._since:
            self._timer = loop.call_later(1.0, self._look, loop)
