"""Carries one context variable into threads that are started inside a block.

Tasks and `asyncio.to_thread` copy the whole context by themselves. Plain threads and thread pools
do not (before Python 3.14), so two methods of the standard library are wrapped when the first
block is entered. The wrappers do nothing outside a block, and carry no other variable.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import wraps
from typing import Any

_installed = False
_installing = threading.Lock()


def carry(variable: ContextVar[Any], empty: Any) -> None:
    """See to it that threads and pool jobs started in a block see the block's value.

    Args:
        variable: what to carry.
        empty: its value outside of any block.

    """
    global _installed  # noqa: PLW0603 - once in a process
    if _installed:
        return
    with _installing:
        if not _installed:
            _wrap_thread(variable, empty)
            _wrap_pool(variable, empty)
            _installed = True


def _wrap_thread(variable: ContextVar[Any], empty: Any) -> None:
    start: Callable[[threading.Thread], None] = threading.Thread.start

    @wraps(start)
    def carrying_start(self: threading.Thread) -> None:
        value = variable.get()
        if value is not empty:
            run = self.run

            def carrying_run() -> None:
                variable.set(value)
                run()

            self.run = carrying_run  # type: ignore[method-assign]
        start(self)

    threading.Thread.start = carrying_start  # type: ignore[method-assign]


def _wrap_pool(variable: ContextVar[Any], empty: Any) -> None:
    submit: Any = ThreadPoolExecutor.submit

    @wraps(submit)
    def carrying_submit(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        value = variable.get()
        if value is empty:
            return submit(self, fn, *args, **kwargs)

        def job(*args: Any, **kwargs: Any) -> Any:
            token = variable.set(value)
            try:
                return fn(*args, **kwargs)
            finally:
                variable.reset(token)

        # The worker thread that this may start outlives the block: it must not inherit it.
        token = variable.set(empty)
        try:
            return submit(self, job, *args, **kwargs)
        finally:
            variable.reset(token)

    ThreadPoolExecutor.submit = carrying_submit  # type: ignore[method-assign, assignment]
