"""Lets threads and thread-pool jobs inherit the context of whoever starts them, where asked to.

Tasks and `asyncio.to_thread` do by themselves, plain threads and thread pools do not (unless Python
3.14 is told to by `-X thread_inherit_context`). Two methods of the standard library have to be
wrapped for it, which is why it is a switch and no default.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import wraps
from typing import Any

_switched = False
_switching = threading.Lock()


def inherit_in_threads() -> None:
    """Let threads and pool jobs that are started from now on see the `request` blocks around them.

    They inherit the whole context: every context variable, and which slots are held, so that a
    call that a thread makes for a call in progress is known to be nested. Once in a process;
    wraps `threading.Thread.start` and `ThreadPoolExecutor.submit`.
    """
    global _switched  # noqa: PLW0603 - once in a process
    with _switching:
        if not _switched:
            _wrap_thread()
            _wrap_pool()
            _switched = True


def _wrap_thread() -> None:
    start: Callable[[threading.Thread], None] = threading.Thread.start

    @wraps(start)
    def inheriting_start(self: threading.Thread) -> None:
        context, run = copy_context(), self.run
        self.run = lambda: context.run(run)  # type: ignore[method-assign]
        start(self)

    threading.Thread.start = inheriting_start  # type: ignore[method-assign]


def _wrap_pool() -> None:
    submit: Any = ThreadPoolExecutor.submit

    @wraps(submit)
    def inheriting_submit(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        return submit(self, copy_context().run, fn, *args, **kwargs)

    ThreadPoolExecutor.submit = inheriting_submit  # type: ignore[method-assign, assignment]
