"""How parameters are declared and checked: one rule beside each default.

For providers and scenarios alike. Standard library only, so that a simulation installs nothing
and its worker processes start at once; the errors name the key, the value and the rule.
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar, cast

from penstock.errors import ConfigError

_P = TypeVar("_P")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be, for the check and for the sentence that refuses it."""

    low: float = -math.inf
    low_is_allowed: bool = True
    high: float = math.inf
    whole: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()

    def allows(self, value: object) -> bool:
        """Return True if the value obeys the rule."""
        if self.choices:
            return value in self.choices
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not math.isfinite(value) or (self.whole and value != int(value)):
            return False
        above = value >= self.low if self.low_is_allowed else value > self.low
        return above and value <= self.high

    def __str__(self) -> str:
        """Say the rule in words."""
        if self.choices:
            return "must be one of " + ", ".join(self.choices)
        words = "must be a whole number" if self.whole else "must be a finite number"
        if self.low > -math.inf:
            words += f" {'>=' if self.low_is_allowed else '>'} {self.low:g}"
        if self.high < math.inf:
            words += f" {'and ' if self.low > -math.inf else ''}<= {self.high:g}"
        return words


def count(default: int, *, low: int = 1) -> int:
    """Declare a whole number of at least `low`."""
    return field(default=default, metadata={"rule": Rule(low=low, whole=True)})


def count_or_none() -> int | None:
    """Declare a whole number of at least 1 that may be left out."""
    return field(default=None, metadata={"rule": Rule(low=1, whole=True, optional=True)})


def positive(default: float) -> float:
    """Declare a number above 0."""
    rule = Rule(low=0.0, low_is_allowed=False)
    return field(default=default, metadata={"rule": rule})


def not_negative(default: float) -> float:
    """Declare a number of 0 or more."""
    return field(default=default, metadata={"rule": Rule(low=0.0)})


def positive_or_none() -> float | None:
    """Declare a number above 0 that may be left out."""
    rule = Rule(low=0.0, low_is_allowed=False, optional=True)
    return field(default=None, metadata={"rule": rule})


def one_of(*choices: str) -> str:
    """Declare a word out of several; the first is the default."""
    return field(default=choices[0], metadata={"rule": Rule(choices=choices)})


def refuse_unknown(given: Iterable[str], known: Iterable[str], *, where: str) -> None:
    """Refuse keys that nobody reads.

    Raises:
        ConfigError: a key is not among the known; the text suggests the nearest.

    """
    names = list(known)
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{where}.{key}: unknown key: {where} takes {', '.join(names)}{hint}")


def read_params(kind: type[_P], table: Mapping[str, Any], *, where: str) -> _P:
    """Return the dataclass filled from the table.

    Raises:
        ConfigError: a key is unknown or a value breaks its rule; the text names key, value, rule.

    """
    declared = {f.name: f for f in fields(cast("Any", kind))}
    refuse_unknown(table, declared, where=where)
    values: dict[str, Any] = {}
    for name, value in table.items():
        rule: Rule = declared[name].metadata["rule"]
        if not rule.allows(value):
            raise ConfigError(f"{where}.{name} = {value!r}: {rule}")
        values[name] = int(value) if rule.whole and value is not None else value
    missing = [n for n, f in declared.items() if f.default is MISSING and n not in values]
    if missing:
        rule = declared[missing[0]].metadata["rule"]
        raise ConfigError(f"{where}.{missing[0]}: missing: it {rule}")
    return kind(**values)
