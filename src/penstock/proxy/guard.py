"""What reads along with a relay never breaks it: its faults are counted, and logged once each."""

import logging
import traceback
from collections.abc import Callable
from typing import TypeVar

from penstock.proxy.observe.tally import Tally

logger = logging.getLogger("penstock.proxy")
Result = TypeVar("Result")


class Guard:
    """Runs readers of foreign bytes."""

    def __init__(self, faults: Tally) -> None:
        """Count in `faults`, by reader."""
        self._faults = faults
        self._logged: set[tuple[str, str]] = set()

    def run(self, reader: str, read: Callable[[], Result], otherwise: Result) -> Result:
        """Return what `read` returns, or `otherwise` if it raises."""
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - whatever it is, the bytes go through
            self.caught(reader, error)
            return otherwise

    def caught(self, reader: str, error: Exception) -> None:
        """Count a fault, and log the first of its kind.

        The text of an unknown exception may quote what was read: only its type and the places
        that it passed are logged, once for each reader and type.
        """
        self._faults.add(reader)
        key = (reader, type(error).__name__)
        if key not in self._logged:
            self._logged.add(key)
            places = "".join(traceback.format_tb(error.__traceback__))
            logger.error("%s while reading along (%s)\n%s", key[1], reader, places)
