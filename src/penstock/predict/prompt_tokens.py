"""How many tokens a prompt has, without a tokenizer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.predict.text import KINDS

_LETTERS = [KINDS.index(name) for name in ("lower", "upper")]
_WIDE = KINDS.index("wide")
_ACCENTED = KINDS.index("accented")


def estimate_tokens(kind_counts: NDArray[np.float64], words: int, *, stretch: float = 1.0) -> float:
    """Return about how many tokens a text has, from its counts of characters and words.

    `stretch` is text length over sampled length. A word or symbol begins a token, and each
    further six letters or two bytes of another script add one.
    """
    letters = float(kind_counts[_LETTERS].sum())
    accented = float(kind_counts[_ACCENTED])
    return stretch * (words + max(0.0, letters - 5.0 * words) / 6.0 + accented / 4.0)
