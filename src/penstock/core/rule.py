"""What a number must be: one rule for the check and for the sentence that refuses it."""

import math
import operator
from dataclasses import dataclass
from typing import Any

LARGEST_NUMBER = 1 << 53
"""Beyond it a float skips whole numbers."""


class BrokenRules(ValueError):
    """Options that cannot work.

    Attributes:
        broken: each option's name, its value and the rule.

    """

    def __init__(self, *broken: tuple[str, object, str]) -> None:
        """Give names, values and rules."""
        text = "; ".join(f"{name}={shown(value)}: {rule}" for name, value, rule in broken)
        super().__init__(text)
        self.broken = broken


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be.

    Attributes:
        low, high: bounds; `low_is_allowed`, `high_is_allowed` say whether they are inside.
        whole: no fraction.
        optional: None is allowed too.
        infinite: inf is allowed too.
        choices: the words that are allowed; no number is, then.
        why: the reason, added to the sentence.

    """

    low: float = -math.inf
    low_is_allowed: bool = True
    high: float = math.inf
    high_is_allowed: bool = True
    whole: bool = False
    optional: bool = False
    infinite: bool = False
    choices: tuple[str, ...] = ()
    why: str = ""

    def allows(self, value: object) -> bool:
        """Return True if the value obeys the rule."""
        if self.choices:
            return value in self.choices
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            return False
        if abs(value) > 1e300:  # a whole number may be too large for a float
            return self.infinite and value == math.inf
        if self.whole and value != int(value):
            return False
        above = value >= self.low if self.low_is_allowed else value > self.low
        return above and (value <= self.high if self.high_is_allowed else value < self.high)

    def require(self, **named: object) -> None:
        """Refuse what breaks the rule; the names are the options'.

        Raises:
            BrokenRules: values break it.

        """
        broken = [(name, v, str(self)) for name, v in named.items() if not self.allows(v)]
        if broken:
            raise BrokenRules(*broken)

    def __str__(self) -> str:
        """Return the rule in words."""
        if self.choices:
            return "must be one of " + ", ".join(self.choices)
        kind = "whole number" if self.whole else "number" if self.infinite else "finite number"
        words = f"must be a {kind}"
        if self.low > -math.inf:
            words += f" {'>=' if self.low_is_allowed else '>'} {_plain(self.low)}"
        if self.high < math.inf:
            words += " and" if self.low > -math.inf else ""
            words += f" {'<=' if self.high_is_allowed else '<'} {_plain(self.high)}"
        return f"{words}, {self.why}" if self.why else words


def plain_number(name: str, value: Any) -> int | float:
    """Return a number as Python's own: numpy's, a decimal's or a subclass's may do anything.

    Raises:
        ValueError: it is none, or beyond a float.

    """
    kind = type(value)
    if kind is float or (kind is int and -LARGEST_NUMBER < value < LARGEST_NUMBER):
        return value  # type: ignore[no-any-return]
    try:
        if hasattr(kind, "__index__") and kind is not int:
            return plain_number(name, operator.index(value))
        if not isinstance(value, str | bytes | bytearray):
            return float(value)
    except (TypeError, ValueError, ArithmeticError):
        pass
    raise ValueError(
        f"{name} is no number: it is of type {type(value).__name__}, or beyond a float"
    )


def shown(value: object) -> str:
    """Return the value for an error message, cut if it is long."""
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"  # Python refuses to print very long ones
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _plain(bound: float) -> str:
    if bound == int(bound) and abs(bound) < 1e9:
        return f"{bound:.0f}"
    return f"{bound:g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
