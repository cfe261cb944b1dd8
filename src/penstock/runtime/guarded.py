"""What reads along with a reply, and what a program hands in, made safe: a fault costs no reply.

Faults are counted by reader, and the first of each kind is logged.
"""

import logging
import traceback
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger("penstock.runtime")
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
