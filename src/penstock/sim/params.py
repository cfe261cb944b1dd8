"""How parameters are declared and checked: one rule beside each default.

For providers and scenarios alike. Standard library only, so that a simulation installs nothing
and its worker processes start at once; the errors name the key, the value and the rule.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar, cast

from penstock.core.rule import Rule, shown
from penstock.errors import ConfigError

_P = TypeVar("_P")


MAX_S = 1e9
"""30 years: more is a mistake of units, and sums of times would lose their milliseconds."""


def count(default: int, *, low: int = 1, high: float = 1e9) -> int:
    """Declare a whole number between bounds."""
    return field(default=default, metadata={"rule": Rule(low=low, high=high, whole=True)})


def count_or_none(*, high: float = 1e9, why: str = "") -> int | None:
    """Declare a whole number from 1 on that may be left out."""
    rule = Rule(low=1, high=high, whole=True, optional=True, why=why)
    return field(default=None, metadata={"rule": rule})


def positive(default: float, *, low: float = 1e-6, high: float = MAX_S) -> float:
    """Declare a number above 0 that can be reckoned with: not below `low`."""
    return field(default=default, metadata={"rule": Rule(low=low, high=high)})


def not_negative(default: float, *, high: float = MAX_S) -> float:
    """Declare a number of 0 or more."""
    return field(default=default, metadata={"rule": Rule(low=0.0, high=high)})


def positive_or_none(*, low: float = 1e-6, high: float = MAX_S) -> float | None:
    """Declare a number above 0 that may be left out."""
    return field(default=None, metadata={"rule": Rule(low=low, high=high, optional=True)})


def share(default: float) -> float:
    """Declare a share, from 0 to 1."""
    return field(default=default, metadata={"rule": Rule(low=0.0, high=1.0)})


def one_of(*choices: str) -> str:
    """Declare a word out of several; the first is the default."""
    return field(default=choices[0], metadata={"rule": Rule(choices=choices)})


def flag(default: bool) -> bool:
    """Declare a yes or no."""
    return field(default=default, metadata={"flag": True})


def table_or_none(kind: type[_P]) -> _P | None:
    """Declare a table of declared parameters that may be left out."""
    return field(default=None, metadata={"table": kind})


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


def read_params(
    kind: type[_P], table: Mapping[str, Any], *, where: str, also: Iterable[str] = ()
) -> _P:
    """Return the dataclass filled from the table.

    Args:
        kind: a dataclass of declared parameters.
        table: as read from TOML.
        where: how errors name the table.
        also: keys that are read elsewhere, to be named among the known ones.

    Raises:
        ConfigError: a key is unknown or a value breaks its rule; the text names key, value, rule.

    """
    # What a model has of its own before what all models have, which is declared by keyword.
    declared = {f.name: f for f in sorted(fields(cast("Any", kind)), key=lambda f: bool(f.kw_only))}
    refuse_unknown(table, (*declared, *also), where=where)
    values = {
        name: _read_value(declared[name].metadata, value, where=f"{where}.{name}")
        for name, value in table.items()
    }
    missing = [n for n, f in declared.items() if f.default is MISSING and n not in values]
    if missing:
        rule = declared[missing[0]].metadata["rule"]
        raise ConfigError(f"{where}.{missing[0]}: missing: it {rule}")
    return kind(**values)


def _read_value(declared: Mapping[str, Any], value: object, *, where: str) -> Any:
    if "table" in declared:
        if not isinstance(value, Mapping):
            names = ", ".join(f.name for f in fields(declared["table"]))
            raise ConfigError(f"{where} = {shown(value)}: must be a table with {names}")
        return read_params(declared["table"], value, where=where)
    if "flag" in declared:
        if not isinstance(value, bool):
            raise ConfigError(f"{where} = {shown(value)}: must be true or false")
        return value
    rule: Rule = declared["rule"]
    if not rule.allows(value):
        raise ConfigError(f"{where} = {shown(value)}: {rule}")
    return int(cast("float", value)) if rule.whole and value is not None else value
