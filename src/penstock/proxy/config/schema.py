"""Checks TOML tables against dataclasses and reports every problem at once.

Ours, because the library for it (pydantic) takes 0.3 s and 20 MB of a sidecar that may take
0.6 s and 60 MB, to check some eighty keys once; msgspec stops at the first problem.
"""

import dataclasses
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.proxy.config.problem import ENV_NAME, Problem, close_to, shown

MOST_CHARACTERS = 256
_TOML_HINTS = {
    bool: "true and false stand without quotes in TOML",
    int: "whole numbers stand without quotes and without a point in TOML",
    float: "numbers stand without quotes in TOML",
    str: "text stands in quotes in TOML",
}


class Rule(ABC):
    """What one key's value must be.

    Attributes:
        says: the rule, as it follows the word "must".

    """

    says = ""

    @abstractmethod
    def read(self, place: str, value: Any, problems: list[Problem]) -> Any:
        """Return the value as the program uses it; what is wrong joins `problems`."""


class Scalar(Rule):
    """A single value."""

    def __init__(self, kind: type, says: str, good: Callable[[Any], bool], cause: str = "") -> None:
        """Accept values of a kind for which `good` holds."""
        self.kind = kind
        self.says = says
        self._good = good
        self._cause = cause

    def read(self, place: str, value: Any, problems: list[Problem]) -> Any:
        """Return the value, whole numbers as floats where a float is wanted."""
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind:
            hint = _TOML_HINTS[self.kind] if isinstance(value, str | int | float) else ""
        elif self._good(value):
            return value
        else:
            hint = self._cause
        problems.append(Problem(place, shown(place, value), f"must {self.says}", hint))
        return None


def flag() -> Rule:
    """Accept true or false."""
    return Scalar(bool, "be true or false", lambda _: True)


def whole(least: int, most: int | None = None) -> Rule:
    """Accept a whole number within bounds."""
    span = f"{least} or more" if most is None else f"from {least} to {most}"
    return Scalar(
        int,
        f"be a whole number, {span}",
        lambda v: v >= least and (most is None or v <= most),
    )


def number(*, above: float | None = None, least: float = 0.0, most: float = math.inf) -> Rule:
    """Accept a finite number within bounds."""
    span = f"{least:g} or more" if above is None else f"above {above:g}"
    if most < math.inf:
        span = f"from {least:g} to {most:g}"
    return Scalar(
        float,
        f"be a number, {span}",
        lambda v: math.isfinite(v) and (v >= least if above is None else v > above) and v <= most,
        "0 and inf are not how 'none' or 'unlimited' is said: leave the key out",
    )


def text(says: str = "be text, not empty", pattern: str = r".+", cause: str = "") -> Rule:
    """Accept text that fits a pattern."""
    compiled = re.compile(pattern + r"\Z", re.DOTALL)
    return Scalar(str, says, lambda v: compiled.match(v) is not None, cause)


def label() -> Rule:
    """Accept a name that can stand in headers, labels and logs."""
    return text(
        "be 1 to 64 letters, digits or _.:- that start with a letter or digit",
        r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}",
    )


def env_name() -> Rule:
    """Accept the name of an environment variable; the key itself never stands in the file."""
    return text(
        "name an environment variable (letters, digits, _)",
        ENV_NAME.pattern.removesuffix(r"\Z"),
        "did the key itself get in here? Then take it for leaked",
    )


def one_of(*words: str) -> Rule:
    """Accept one of these words."""
    return Scalar(str, f"be one of {', '.join(words)}", lambda v: v in words)


def url(parse: Callable[[str], object]) -> Rule:
    """Accept what `parse` takes; its ValueError says what it misses."""
    return _Parsed(parse)


class _Parsed(Rule):
    says = "be an http:// or https:// URL with a host"

    def __init__(self, parse: Callable[[str], object]) -> None:
        self._parse = parse

    def read(self, place: str, value: Any, problems: list[Problem]) -> Any:
        if not isinstance(value, str):
            problems.append(Problem(place, shown(place, value), f"must {self.says}"))
            return None
        try:
            self._parse(value)
        except ValueError as error:
            problems.append(Problem(place, shown(place, value), str(error)))
        return value


class Items(Rule):
    """A list, every item by one rule."""

    def __init__(self, item: Rule, least: int = 0) -> None:
        """Accept at least so many items."""
        self.item = item
        self._least = least
        self.says = "be a list" + (f" of {least} or more" if least else "")

    def read(self, place: str, value: Any, problems: list[Problem]) -> Any:
        """Return a tuple."""
        if not isinstance(value, list) or len(value) < self._least:
            where = place.rsplit(".", 1)[-1]
            hint = f"tables of a list stand under [[{where}]]" if isinstance(value, dict) else ""
            problems.append(Problem(place, shown(place, value), f"must {self.says}", hint))
            return ()
        return tuple(self.item.read(f"{place}[{i}]", v, problems) for i, v in enumerate(value))


class Names(Rule):
    """A table of names to names."""

    says = 'be a table of names, such as { "a" = "b" }'

    def read(self, place: str, value: Any, problems: list[Problem]) -> Any:
        """Return the table."""
        good = isinstance(value, Mapping) and all(
            isinstance(name, str) and 0 < len(name) <= MOST_CHARACTERS
            for pair in value.items()
            for name in pair
        )
        if not good:
            rule = f"must {self.says}, of 1 to {MOST_CHARACTERS} characters"
            problems.append(Problem(place, shown(place, value), rule))
            return None
        return dict(value)


class Table(Rule):
    """A table, as a dataclass whose fields are made by `key`."""

    says = "be a table"

    def __init__(self, kind: type) -> None:
        """Accept what the dataclass describes."""
        self.kind = kind

    def read(self, place: str, value: Any, problems: list[Problem]) -> Any:
        """Return the dataclass; None if anything in it is wrong."""
        if not isinstance(value, Mapping):
            hint = f"it stands under its own [{place}]"
            problems.append(Problem(place, shown(place, value), f"must {self.says}", hint))
            return None
        return read_table(self.kind, value, place, problems)


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """A policy by its name in the registry, with its own options beside it."""

    kind: str
    options: Mapping[str, Any]


class PolicyRule(Rule):
    """A policy: its name alone, or a table with `kind` and whatever options that kind has."""

    says = "be a policy's name, or a table with a kind"

    def read(self, place: str, value: Any, problems: list[Problem]) -> Any:
        """Return the table; the registry checks kind and options later."""
        if isinstance(value, str):
            return PolicyTable(value, {})
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            problems.append(Problem(place, shown(place, value), f"must {self.says}"))
            return None
        options = {key: item for key, item in value.items() if key != "kind"}
        return PolicyTable(value["kind"], options)


_MISSING: Any = object()


def key(rule: Rule, description: str, default: Any = _MISSING) -> Any:
    """Return a dataclass field for one key; without a default it must be given."""
    metadata = {"rule": rule, "description": description}
    if default is _MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_table(kind: type, data: Mapping[str, Any], place: str, problems: list[Problem]) -> Any:
    """Return `data` as the dataclass `kind`; None if anything in it is wrong."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    before = len(problems)
    prefix = f"{place}." if place else ""
    for unknown in [k for k in data if k not in fields]:
        where = prefix + unknown
        problems.append(
            Problem(where, shown(where, data[unknown]), "is no key of this table",
                    close_to(unknown, fields))
        )  # fmt: skip
    values: dict[str, Any] = {}
    for field in fields.values():
        if field.name in data:
            rule: Rule = field.metadata["rule"]
            values[field.name] = rule.read(prefix + field.name, data[field.name], problems)
        elif field.default is dataclasses.MISSING:
            problems.append(
                Problem(prefix + field.name, "", "is missing",
                        "was the line forgotten, or put under another table?")
            )  # fmt: skip
    if len(problems) > before:
        return None
    table = kind(**values)
    complaints = getattr(table, "complaints", None)
    for name_, rule_text in complaints() if complaints is not None else ():
        where = prefix + name_
        problems.append(Problem(where, shown(where, getattr(table, name_)), rule_text))
    return table if len(problems) == before else None
