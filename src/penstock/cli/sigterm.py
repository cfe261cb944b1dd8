"""SIGTERM ends a command as Ctrl-C does."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Give SIGTERM the meaning that SIGINT has at that moment, so that children are ended too.

    At that moment, because `asyncio.run` cancels its main task on SIGINT. An exception that is
    raised into whatever runs would leave half-built objects, whose finalizers print tracebacks.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # SIGINT is ignored, as in a shell's background; SIGTERM is not
        handler = signal.default_int_handler
    handler(signum, frame)
