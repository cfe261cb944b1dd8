"""What is done in a forked child, whose parent goes on."""

import os
from collections.abc import Callable
from weakref import WeakMethod


def when_forked(method: Callable[[], None]) -> None:
    """Call a bound method in each forked child, as long as its object lives."""
    weak = WeakMethod(method)

    def in_child() -> None:
        live = weak()
        if live is not None:
            live()

    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=in_child)
