"""What a program hands in, made safe: a hook that raises costs its own figure, never a reply."""

import logging
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from penstock.calls.bounds import MOST_TOKENS
from penstock.calls.tracing import Trace
from penstock.core.events import Dispatch, Reject
from penstock.wire.usage import Usage

logger = logging.getLogger("penstock.runtime")
_COUNTS = ("output_tokens", "prompt_tokens", "cached_tokens", "counted_input_tokens")
_UNKNOWN = Usage(source="unknown")
_told: set[str] = set()


def tell_once(what: str, error: object) -> None:
    """Log the first failure of each kind: a hook that is broken fails at every call."""
    if what not in _told:
        _told.add(what)
        logger.warning(
            "%s (%s: %s); the call goes on, and further such failures are not logged",
            what, type(error).__name__, error,
        )  # fmt: skip


def usage_of(usage: Usage | None) -> Usage:
    """Return a usage whose counts are whole numbers; what is no count is unknown, and logged once.

    numpy's integers are counts, and so is 12.0.
    """
    if usage is None:
        return _UNKNOWN
    if not isinstance(usage, Usage):
        tell_once("a slot was settled with what is no penstock.Usage", usage)
        return _UNKNOWN
    counts = {name: _count(getattr(usage, name)) for name in _COUNTS}
    if all(type(getattr(usage, name)) is type(count) for name, count in counts.items()):
        return usage
    return replace(usage, **counts)  # type: ignore[arg-type]


def _count(value: Any) -> int | None:
    if value is None:
        return None
    try:
        whole = isinstance(value, float) and value.is_integer()
        count = int(value) if whole else operator.index(value)
    except (TypeError, ValueError, OverflowError) as error:
        tell_once("a slot was settled with what is no count of tokens", error)
        return None
    if not 0 <= count <= MOST_TOKENS:
        tell_once("a slot was settled with an impossible count of tokens", ValueError(str(count)))
        return None
    return count


class GuardedTrace:
    """A trace whose tracer may raise."""

    __slots__ = ("_trace",)

    def __init__(self, trace: Trace | None) -> None:
        """Pass everything on to `trace`, if there is one."""
        self._trace = trace

    @classmethod
    def begun(cls, begin: Callable[[], Trace | None]) -> "GuardedTrace | None":
        """Return the trace that `begin` begins; None if there is none, or it raised."""
        try:
            trace = begin()
        except Exception as error:  # noqa: BLE001 - logged; the call goes on without a trace
            tell_once("the tracer failed to begin a trace", error)
            return None
        return None if trace is None else cls(trace)

    def decided(self, word: Dispatch | Reject) -> None:
        """Note that it was dispatched or refused."""
        self._note("decided", word)

    def first_token(self) -> None:
        """Note that the reply began."""
        self._note("first_token")

    def ended(self, result: str, output_tokens: int | None, prompt_tokens: int | None) -> None:
        """Note the end."""
        self._note("ended", result, output_tokens, prompt_tokens)

    def _note(self, what: str, *facts: Any) -> None:
        try:
            getattr(self._trace, what)(*facts)
        except Exception as error:  # noqa: BLE001 - logged; the reply is worth more than its trace
            tell_once(f"the tracer failed on {what}", error)
