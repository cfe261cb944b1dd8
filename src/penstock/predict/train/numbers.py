"""Numbers as files have them: what is one, and how to say of a value that it is none."""

from __future__ import annotations

import math
from decimal import Decimal

TOKENS_MAX = 10_000_000
"""No reply has more tokens; a larger count is a time stamp or bytes."""


def finite(value: object) -> float | None:
    """Return a finite number as a float; None for all else, and truth values are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # 10**400; a signalling NaN
        return None
    return number if math.isfinite(number) else None


def token_count(value: object) -> float | None:
    """Return a count of tokens, from 0 to `TOKENS_MAX`; None for what is none."""
    number = finite(value)
    return number if number is not None and 0 <= number <= TOKENS_MAX else None


def likely_cause(value: object) -> str:
    """Return what probably went wrong where a number was to be, as a question."""
    if value is None:
        return "is the field there, under this name, in every row?"
    if isinstance(value, bool):
        return "a truth value is no number; was another field taken for it?"
    if isinstance(value, str):
        return "was the number written in quotes?"
    if isinstance(value, int | float | Decimal):
        return "is it a missing value or a sum gone wrong, or something other than tokens?"
    return "was another field taken for it?"
