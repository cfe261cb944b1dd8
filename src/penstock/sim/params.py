"""How a scenario's keys are declared: a number's bounds and its default."""

from typing import Any

from penstock.core.rule import Rule
from penstock.schema.types import ruled

MAX_S = 1e9
"""30 years: more is a mistake of units, and sums of times would lose their milliseconds."""


def count(default: int | None, *, low: int = 1, high: int = 10**9, why: str = "") -> Any:
    """Declare a whole number between bounds."""
    return ruled(Rule(low=low, high=high, whole=True, why=why), default)


def positive(default: float | None, *, low: float = 1e-6, high: float = MAX_S) -> Any:
    """Declare a number above 0 that can be reckoned with: not below `low`."""
    return ruled(Rule(low=low, high=high), default)


def not_negative(default: float, *, high: float = MAX_S) -> Any:
    """Declare a number of 0 or more."""
    return ruled(Rule(low=0.0, high=high), default)
