"""A decision log's lines, each value checked; errors name file, line, key, value and rule."""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.rule import Rule, shown
from penstock.errors import ConfigError
from penstock.sim.traces.trace import MOST_TOKENS

logger = logging.getLogger("penstock.traces")

COUNT = Rule(low=0, high=MOST_TOKENS, whole=True)
NUMBER = Rule()
_TABLE = "must be an object"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One JSON object of the log, or one inside it.

    Attributes:
        table: what it says.
        path, number: where it stands.
        within: the keys that lead to it, for errors; empty for the line itself.

    """

    table: Mapping[str, Any]
    path: Path
    number: int
    within: str = ""

    def number_of(self, key: str, rule: Rule, *, default: float | None = None) -> Any:
        """Return the number, or None where the rule lets it be left out."""
        value = self.table.get(key, default)
        if not rule.allows(value):
            raise self.error(key, str(rule))
        return int(value) if rule.whole and value is not None else value

    def text_of(self, key: str, *, default: str | None = None, empty: bool = True) -> str:
        """Return the text."""
        value = self.table.get(key, default)
        if not isinstance(value, str) or not (value or empty):
            raise self.error(key, "must be a text" + ("" if empty else " that is not empty"))
        return value

    def inner(self, key: str) -> "LogLine":
        """Return the object under a key."""
        value = self.table.get(key)
        if not isinstance(value, Mapping):
            raise self.error(key, _TABLE)
        return LogLine(value, self.path, self.number, f"{self.within}{key}.")

    def inner_list(self, key: str) -> "list[LogLine]":
        """Return the objects of the list under a key; none if it is left out."""
        values = self.table.get(key, [])
        if not isinstance(values, list) or not all(isinstance(v, Mapping) for v in values):
            raise self.error(key, "must be a list of objects")
        return [
            LogLine(value, self.path, self.number, f"{self.within}{key}[{n}].")
            for n, value in enumerate(values)
        ]

    def error(self, key: str, rule: str) -> ConfigError:
        """Return the error that says what is wrong with a key."""
        where = f"trace {self.path}, line {self.number}: {self.within}{key}"
        if key not in self.table:
            return ConfigError(f"{where}: is missing: it {rule}")
        return ConfigError(f"{where} = {shown(self.table[key])}: {rule}")


def lines_of(texts: list[str], path: Path) -> Iterator[LogLine]:
    """Yield the lines; a last one that a crash cut is passed over, and said to be.

    Raises:
        ConfigError: another line is no JSON object.

    """
    for number, text in enumerate(texts, start=1):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            if 1 < number == len(texts):
                logger.warning(
                    "trace %s: its last line, %d, is cut off and was passed over", path, number
                )
                return
            raise ConfigError(f"trace {path}, line {number}: must be JSON: {error}") from error
        if not isinstance(value, dict):
            raise ConfigError(f"trace {path}, line {number}: must be a JSON object")
        yield LogLine(value, path, number)


def or_inf(value: float | None) -> float:
    """Return inf for the null that stands for it in the log."""
    return math.inf if value is None else value
