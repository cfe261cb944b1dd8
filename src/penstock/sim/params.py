"""How parameters are declared: one rule beside each default. `schema.declared` reads them."""

from collections.abc import Iterable
from dataclasses import field
from typing import TypeVar

from penstock.core.rule import Rule
from penstock.schema.problem import Mistakes, Problem, close_to

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
        Mistakes: keys are not among the known; the text suggests the nearest.

    """
    names = list(known)
    unknown = [key for key in given if key not in names]
    if unknown:
        raise Mistakes(
            [Problem(f"{where}.{key}", "", "is no key of this table", close_to(key, names))
             for key in unknown]
        )  # fmt: skip
