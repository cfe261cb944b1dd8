"""A text as numbers: counts of kinds of characters, and hashed word n-grams.

Everything is done on UTF-8 bytes with numpy, so that 2 kB cost tens of microseconds and no
language needs a tokenizer of its own. No number leads back to the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRAM_BITS = 16
"""Hashed n-grams fall into 2**16 places: a place is a uint16, which numpy sorts by radix."""
SAMPLE_BYTES = 700
"""Of a longer text, so many bytes of its head and as many of its tail are read for n-grams."""
KINDS = (
    "lower",
    "upper",
    "digit",
    "space",
    "newline",
    "stop",
    "bracket",
    "operator",
    "quote",
    "accented",
    "wide",
    "rest",
)
"""Kinds of bytes that are counted; `wide` are scripts written without spaces (CJK, emoji)."""

_KIND = {name: number for number, name in enumerate(KINDS)}
_MULTIPLIER = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: multiplication is a bijection
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True, eq=False)
class TextNumbers:
    """What is kept of a text.

    Attributes:
        kind_counts: bytes of each kind in `KINDS`, over the sampled text, float64.
        words: how many words, symbols and wide characters the sampled text has.
        grams: sorted unique places of its hashed unigrams and bigrams, uint16.

    """

    kind_counts: NDArray[np.float64]
    words: int
    grams: NDArray[np.uint16]


def _kind_table() -> NDArray[np.uint8]:
    table = np.full(256, _KIND["rest"], np.uint8)
    for characters, kind in (
        ("abcdefghijklmnopqrstuvwxyz", "lower"),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "upper"),
        ("0123456789", "digit"),
        (" \t\r", "space"),
        ("\n", "newline"),
        (".,;:!?", "stop"),
        ("()[]{}<>", "bracket"),
        ("+-*/=^$%&|~\\#@_", "operator"),
        ("\"'`", "quote"),
    ):
        table[list(characters.encode())] = _KIND[kind]
    table[0x80:0xE0] = _KIND["accented"]
    table[0xE0:] = _KIND["wide"]
    table[0x80:0xC0] = _KIND["accented"]
    return table


def _fold_table() -> NDArray[np.uint64]:
    """Lower case, and every digit the same: a number counts by its length, not its value."""
    table = np.arange(256, dtype=np.uint64)
    table[ord("A") : ord("Z") + 1] += 32
    table[ord("0") : ord("9") + 1] = ord("0")
    return table + np.uint64(1)


def _powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    inverse = pow(_MULTIPLIER, -1, 1 << 64)
    up, down = [1], [1]
    for _ in range(count):
        up.append(up[-1] * _MULTIPLIER & _MASK)
        down.append(down[-1] * inverse & _MASK)
    return np.array(up, np.uint64), np.array(down, np.uint64)


_KIND_OF = _kind_table()
_FOLD = _fold_table()
_UP, _DOWN = _powers(2 * SAMPLE_BYTES + 8)
_IN_WORD = np.isin(_KIND_OF, [_KIND[name] for name in ("lower", "upper", "digit", "accented")])
_IN_WORD[ord("_")] = True
# A wide character is three or four bytes: the first starts a word, the others go on with it.
_GOES_ON = _IN_WORD | (_KIND["wide"] == _KIND_OF)
_BLANK = np.isin(_KIND_OF, [_KIND["space"], _KIND["newline"]])
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
_SHIFT = np.uint64(64 - GRAM_BITS)


def sample(text: str) -> bytes:
    """Return the text as UTF-8, its middle left out if it is long.

    A lone surrogate becomes "?": JSON may carry one, and it must not stop a prediction.
    """
    if len(text) > 2 * SAMPLE_BYTES:
        text = text[:SAMPLE_BYTES] + text[-SAMPLE_BYTES:]
    data = text.encode("utf-8", "replace")
    if len(data) > 2 * SAMPLE_BYTES:
        data = data[:SAMPLE_BYTES] + data[-SAMPLE_BYTES:]
    return data


def read_text(text: str) -> TextNumbers:
    """Return the numbers of a text. Work is bounded by `SAMPLE_BYTES`, whatever its length.

    Source:
        Hashed features: Weinberger et al., ICML 2009. Rolling hash: Karp & Rabin, 1987; here
        over prefix sums modulo 2**64, so that all words are hashed at once.

    """
    raw = np.frombuffer(sample(text), np.uint8)
    counts = np.bincount(_KIND_OF.take(raw), minlength=len(KINDS)).astype(np.float64)
    if raw.size == 0:
        return TextNumbers(counts, 0, np.empty(0, np.uint16))
    starts, ends = _words(raw)
    sums = np.zeros(raw.size + 1, np.uint64)
    np.cumsum(_FOLD.take(raw) * _UP[: raw.size], out=sums[1:])
    hashes = (sums.take(ends) - sums.take(starts)) * _DOWN.take(starts) * _MIX
    pairs = ((hashes[:-1] * _PAIR) ^ (hashes[1:] >> np.uint64(7))) * _MIX
    places = np.concatenate((_places(hashes), _places(pairs)))
    places.sort()
    first = np.ones(places.size, np.bool_)
    np.not_equal(places[1:], places[:-1], out=first[1:])
    return TextNumbers(counts, int(starts.size), places[first])


def _words(raw: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where words begin and end; a symbol is a word of its own."""
    blank = _BLANK.take(raw)
    begins = ~blank
    begins[1:] &= ~(_IN_WORD.take(raw[1:]) & _GOES_ON.take(raw[:-1]))
    borders = np.flatnonzero(begins | blank)
    is_begin = begins.take(borders)
    until = np.append(borders[1:], raw.size)
    return borders[is_begin], until[is_begin]


def _places(hashes: NDArray[np.uint64]) -> NDArray[np.uint16]:
    mixed: NDArray[np.uint64] = (hashes ^ (hashes >> np.uint64(29))) * _PAIR
    return (mixed >> _SHIFT).astype(np.uint16)
