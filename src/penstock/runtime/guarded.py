"""What reads along with a reply, and what a program hands in, made safe: a fault costs no reply.

Faults are counted by reader, and the first of each kind is logged.
"""

import logging
import operator
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from penstock.core.bounds import LARGEST_COUNT
from penstock.wire.usage import Usage

logger = logging.getLogger("penstock.runtime")
_COUNTS = ("output_tokens", "prompt_tokens", "cached_tokens", "counted_input_tokens")
_UNKNOWN = Usage(source="unknown")
Result = TypeVar("Result")


class Guard:
    """Runs what reads foreign bytes, and hears of hooks that fail.

    Attributes:
        faults: how often each reader or hook has failed.

    """

    __slots__ = ("_count", "_logged", "faults")

    def __init__(self, count: Callable[[str], object] | None = None) -> None:
        """Begin at nothing.

        Args:
            count: told the reader's name at each fault, for a metric.

        """
        self._count = count
        self._logged: set[tuple[str, str]] = set()
        self.faults: Counter[str] = Counter()

    def run(self, reader: str, read: Callable[[], Result], otherwise: Result) -> Result:
        """Return what `read` returns, or `otherwise` if it raises."""
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - whatever it is, the bytes go through
            self.caught(reader, error)
            return otherwise

    def caught(self, reader: str, error: Exception) -> None:
        """Count a fault of a reader, and log the first of its kind.

        The text of an unknown exception may quote what was read: only its type and the places
        that it passed are logged, once for each reader and type.
        """
        kind = type(error).__name__
        if self._first(reader, kind):
            places = "".join(traceback.format_tb(error.__traceback__))
            logger.error("%s while reading along (%s)\n%s", kind, reader, places)

    def hook_failed(self, hook: str, what: str, error: object) -> None:
        """Count a fault of what the program handed in, and log the first of its kind, in words.

        Args:
            hook: its name, for the count: "usage", "tracer" or "predictor".
            what: what it failed to do.
            error: what it raised or returned; the program's own, so that its text may be shown.

        """
        if self._first(hook, what):
            logger.warning(
                "%s (%s: %s); the call goes on, and further such failures are not logged",
                what, type(error).__name__, error,
            )  # fmt: skip

    def _first(self, reader: str, kind: str) -> bool:
        """Count a failure; return whether it is the first of its kind, which is logged."""
        self.faults[reader] += 1
        if self._count is not None:
            self._count(reader)
        if (reader, kind) in self._logged:
            return False
        self._logged.add((reader, kind))
        return True


def usage_of(usage: Usage | None, guard: Guard) -> Usage:
    """Return a usage whose counts are whole numbers; what is no count is unknown, and logged once.

    numpy's integers are counts, and so is 12.0.
    """
    if usage is None:
        return _UNKNOWN
    if not isinstance(usage, Usage):
        guard.hook_failed("usage", "a slot was settled with what is no penstock.Usage", usage)
        return _UNKNOWN
    for count in (
        usage.output_tokens, usage.prompt_tokens, usage.cached_tokens, usage.counted_input_tokens,
    ):  # fmt: skip
        if count is not None and (type(count) is not int or not 0 <= count <= LARGEST_COUNT):
            break
    else:
        return usage
    counts = {name: _count(getattr(usage, name), guard) for name in _COUNTS}
    return replace(usage, **counts)  # type: ignore[arg-type]


def _count(value: Any, guard: Guard) -> int | None:
    if value is None:
        return None
    try:
        whole = isinstance(value, float) and value.is_integer()
        count = int(value) if whole else operator.index(value)
    except (TypeError, ValueError, OverflowError) as error:
        guard.hook_failed("usage", "a slot was settled with what is no count of tokens", error)
        return None
    if not 0 <= count <= LARGEST_COUNT:
        what = "a slot was settled with an impossible count of tokens"
        guard.hook_failed("usage", what, ValueError(str(count)))
        return None
    return count
