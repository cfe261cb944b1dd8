"""How long callers may take to send their bodies."""

import asyncio
from typing import Any


class Patience:
    """Cancels tasks that take too long, by one look a second over all of them.

    A timer for every request would cost 3 us on each; being up to a second late is no matter
    where the span is a minute.
    """

    def __init__(self, span_s: float) -> None:
        """Allow each task so many seconds."""
        self.span_s = span_s
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
        latest = loop.time() - self.span_s
        for task in [task for task, since in self._since.items() if since <= latest]:
            del self._since[task]
            self._late.add(task)
            task.cancel()
        if self._since:
            self._timer = loop.call_later(1.0, self._look, loop)
