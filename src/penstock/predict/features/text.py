"""A text as numbers: counts of kinds of characters, hashed word n-grams, and its size in tokens.

Everything is done on UTF-8 bytes with numpy, so that 2 kB cost tens of microseconds and no
language needs a tokenizer of its own; where the optional one is loaded, tokens are counted exactly.
No number leads back to the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from bpe_openai import Encoding

GRAM_BITS = 16
"""Hashed n-grams fall into 2**16 places: a place is a uint16, which numpy sorts by radix."""
PLACES = 1 << GRAM_BITS
SAMPLE_BYTES = 450
"""Of a longer text, so many bytes of its head and as many of its tail are read for n-grams: nine in
ten of every kind of prompt that the shipped prior was made of are shorter than the two together."""
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


@dataclass(slots=True, eq=False)  # not frozen: one is made a call
class TextNumbers:
    """What is kept of a text.

    Attributes:
        kind_counts: bytes of each kind in `KINDS`, over the sampled text.
        words: how many words, symbols and wide characters the sampled text has.
        grams: sorted unique places of its hashed unigrams and bigrams, uint16.

    """

    kind_counts: list[int]
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
    """Return the powers of the hash multiplier up to `count`, and of its inverse."""
    inverse = pow(_MULTIPLIER, -1, 1 << 64)
    up, down = [1], [1]
    for _ in range(count):
        up.append(up[-1] * _MULTIPLIER & _MASK)
        down.append(down[-1] * inverse & _MASK)
    return np.array(up, np.uint64), np.array(down, np.uint64)


_KIND_OF = _kind_table()
_FOLD = _fold_table()
# Arrays of no dimension: numpy takes half as long again over its own scalars.
_MIX, _PAIR, _PAIR_SHIFT, _PLACE_SHIFT, _SHIFT = (
    np.array(number, np.uint64)
    for number in (0xFF51AFD7ED558CCD, 0xC2B2AE3D27D4EB4F, 7, 29, 64 - GRAM_BITS)
)
_UP, _down = _powers(2 * SAMPLE_BYTES + 8)
_DOWN = _down * _MIX
_IN_WORD, _GOES_ON, _SEEN = 1, 2, 4  # of a byte: see `_part_table`


def _part_table() -> bytes:
    """Flags of every byte: is it part of a word, may a word go on after it, is it not blank?"""
    in_word = np.isin(_KIND_OF, [_KIND[name] for name in ("lower", "upper", "digit", "accented")])
    in_word[ord("_")] = True
    # A wide character is three or four bytes: the first starts a word, the others go on with it.
    goes_on = in_word | (_KIND["wide"] == _KIND_OF)
    seen = ~np.isin(_KIND_OF, [_KIND["space"], _KIND["newline"]])
    return bytes((_IN_WORD * in_word | _GOES_ON * goes_on | _SEEN * seen).tolist())


def _border_tables() -> tuple[bytes, bytes]:
    """Return whether a word begins, and whether one ended, by the flags of two neighbours."""
    borders = [not (pair >> 3 & _GOES_ON and pair & _IN_WORD) for pair in range(256)]
    begins = bytes(border and pair & _SEEN != 0 for pair, border in enumerate(borders))
    ended = bytes(border and pair >> 3 & _SEEN != 0 for pair, border in enumerate(borders))
    return begins, ended


_PARTS = _part_table()
_BEGINS, _ENDED = _border_tables()
_KIND_BYTES = _KIND_OF.tobytes()


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
    data = sample(text)
    raw = np.frombuffer(data, np.uint8)
    kinds = np.frombuffer(data.translate(_KIND_BYTES), np.uint8)
    counts = np.bincount(kinds, minlength=len(KINDS)).tolist()
    starts, ends = _words(data)
    if starts.size == 0:
        return TextNumbers(counts, 0, np.empty(0, np.uint16))
    sums = np.empty(raw.size + 1, np.uint64)
    sums[0] = 0
    np.multiply(_FOLD.take(raw), _UP[: raw.size], out=sums[1:])
    np.add.accumulate(sums, out=sums)
    return TextNumbers(counts, int(starts.size), _grams(sums, starts, ends))


def _words(data: bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where words begin and end; a symbol is a word of its own."""
    parts = np.frombuffer((b" %b " % data).translate(_PARTS), np.uint8)
    pairs = parts[:-1] << 3
    pairs |= parts[1:]
    flags = pairs.tobytes()
    begins, ended = (
        np.frombuffer(flags.translate(table), np.bool_).nonzero()[0] for table in (_BEGINS, _ENDED)
    )
    return begins, ended


def _grams(
    sums: NDArray[np.uint64], starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> NDArray[np.uint16]:
    """Return the sorted unique places of words and of pairs of words, from prefix sums."""
    hashes = np.empty(2 * starts.size - 1, np.uint64)
    words, pairs = hashes[: starts.size], hashes[starts.size :]
    np.subtract(sums.take(ends), sums.take(starts), out=words)
    words *= _DOWN.take(starts)
    np.multiply(words[:-1], _PAIR, out=pairs)
    pairs ^= words[1:] >> _PAIR_SHIFT
    pairs *= _MIX
    hashes ^= hashes >> _PLACE_SHIFT
    hashes *= _PAIR
    hashes >>= _SHIFT
    places = hashes.astype(np.uint16)
    places.sort()
    first = np.ones(places.size, np.bool_)
    np.not_equal(places[1:], places[:-1], out=first[1:])
    return places[first]


VOCABULARY = "o200k_base"
"""Of OpenAI's models since gpt-4o; for others a count with it is the better estimate."""
COUNTED_CHARS_MAX = 10_000
"""Longer prompts are counted by head and tail: a count costs 1 ms per 10,000 characters."""

_LOWER, _UPPER = KINDS.index("lower"), KINDS.index("upper")
_WIDE = KINDS.index("wide")
_ACCENTED = KINDS.index("accented")
_PER_FOREIGN = 0.1  # letters of scripts that the vocabulary knows less well
_PER_WIDE = 0.65  # between 0.72 a character of Chinese and 0.47 of Japanese


def estimate_tokens(counts: Sequence[int], words: int, *, stretch: float = 1.0) -> float:
    """Return about how many tokens a text has, from its counts of characters and words.

    A word or symbol begins a token, and each six letters beyond the fifth add one. Against
    o200k_base the median is within 10 % for English prose, mathematics and code, where a quarter
    of the characters is up to 29 % off; the page "explanation/predictor" has the table.

    Args:
        counts: bytes of each kind in `KINDS`.
        words: words, symbols and wide characters, as `read_text` counts them.
        stretch: length of the text over the length of what was counted.

    """
    wide = counts[_WIDE]
    # A wide character has two more bytes of kind "accented"; any other such letter has two.
    foreign = max(0.0, counts[_ACCENTED] - 2.0 * wide) / 2.0
    letters = counts[_LOWER] + counts[_UPPER] + foreign
    narrow = max(0.0, words - wide)
    longer = max(0.0, letters - 5.0 * narrow) / 6.0
    return stretch * (narrow + longer + _PER_FOREIGN * foreign + _PER_WIDE * wide)


_tokenizer: Encoding | None = None


def load_tokenizer() -> None:
    """Count the prompts of this process exactly from now on; without it they are estimated.

    Nothing is downloaded: the vocabulary is part of the package. It takes about 0.3 s and 150 MB.

    Raises:
        ConfigError: the tokenizer is not installed.

    """
    global _tokenizer  # noqa: PLW0603 - one vocabulary serves the process
    try:
        import bpe_openai
    except ImportError as error:
        raise ConfigError(
            "counting prompts exactly needs the tokenizer: pip install 'penstock[tokenizer]'"
        ) from error
    _tokenizer = bpe_openai.get_encoding(VOCABULARY)


def count_tokens(texts: Sequence[str], *, estimate: int) -> int:
    """Return how many tokens texts have together; `estimate` where no tokenizer is loaded.

    Exact for up to `COUNTED_CHARS_MAX` characters. Of more, as many are counted, half from the
    head and half from the tail, and the rest is taken to be like them.
    """
    known = _tokenizer
    if known is None:
        return estimate
    total = sum(map(len, texts))
    if total <= COUNTED_CHARS_MAX:
        return sum(len(known.encode_ordinary(text)) for text in texts)
    half = COUNTED_CHARS_MAX // 2
    joined = "\n".join(texts)
    ends = (joined[:half], joined[-half:])
    counted = sum(len(known.encode_ordinary(text)) for text in ends)
    return round(counted * total / COUNTED_CHARS_MAX)
