"""Ctrl-C at one place of a call: counted, so that every place can have its turn."""

import dis
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

_LOOKING = {
    dis.opmap[name]
    for name in ("RESUME", "JUMP_BACKWARD", "CALL", "CALL_FUNCTION_EX")
    if name in dis.opmap
}
"""After these Python looks whether a signal has come; not where a function of Python's returns."""


class _Aim:
    """A trace function that interrupts at the `place`-th look for signals in penstock's files."""

    def __init__(self, place: int) -> None:
        self.left = place
        self._last: dict[FrameType, int] = {}
        self._returned_to: FrameType | None = None

    def __call__(self, frame: FrameType, event: str, _arg: object) -> "_Aim":
        if event == "return":
            self._returned_to = frame.f_back
        elif event == "call":
            self._returned_to = None
            frame.f_trace_lines = False
            frame.f_trace_opcodes = "/penstock/" in frame.f_code.co_filename
        elif event == "opcode":
            looks = self._last.get(frame) in _LOOKING and self._returned_to is not frame
            self._returned_to = None
            self._last[frame] = frame.f_code.co_code[frame.f_lasti]
            self.left -= looks
            if looks and not self.left:
                self._last.clear()
                signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)  # type: ignore[operator, misc]
        return self


def interrupted(call: Callable[[], Any], place: int) -> bool:
    """Call, with Ctrl-C at its `place`-th place; return whether it has so many."""
    aim = _Aim(place)
    before = sys.gettrace()
    sys.settrace(aim)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return aim.left <= 0
