"""Reply texts: one word is one token, and the same request gets the same words."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import orjson

from penstock.sim.calls import unit

_TEXT = (
    "the water runs down from a high lake and turns one wheel after another while we count "
    "every turn it takes so nobody waits for more than his share of the stream when rain comes "
    "or goes and each gate opens just as far as that mill below can use now"
)
_WORDS = _TEXT.split()
_OF_THE_FORM = frozenset(("stream", "stream_options"))
_LENGTH_STREAM = 0x4C54
_SHORTEST, _LONGEST = 16, 1024


def seed_of(text: bytes, seed: int) -> int:
    """Return the number on which everything about a text depends."""
    key = (seed & 0xFFFFFFFF).to_bytes(4, "big")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key).digest(), "big")


def seed_of_call(body: Mapping[str, Any], seed: int) -> int:
    """Return the number on which everything about a call's reply depends, its ids too.

    A stream is the same reply as the whole.
    """
    counted = {key: value for key, value in body.items() if key not in _OF_THE_FORM}
    return seed_of(orjson.dumps(counted, option=orjson.OPT_SORT_KEYS), seed)


def reply_words(request_seed: int, tokens: int) -> list[str]:
    """Return that many words."""
    start = request_seed % len(_WORDS)
    step = 1 + (request_seed >> 8) % (len(_WORDS) - 1)
    return [_WORDS[(start + step * i + i // 7) % len(_WORDS)] for i in range(tokens)]


def drawn_tokens(request_seed: int) -> int:
    """Return a length for a reply of which nothing is said: loguniform over 16 to 1024."""
    low, high = math.log(_SHORTEST), math.log(_LONGEST)
    return round(math.exp(low + (high - low) * unit(request_seed, _LENGTH_STREAM, 0)))


def count_tokens(text: str) -> int:
    """Return how many tokens the mock takes the text for: its words."""
    return len(text.split())


def sample_of(schema: Mapping[str, Any], words: list[str]) -> Any:
    """Return a value that fits the JSON schema, with the words as its first text."""
    if "enum" in schema:
        return schema["enum"][0]
    for branch in ("anyOf", "oneOf", "allOf"):
        if schema.get(branch):
            return sample_of(schema[branch][0], words)
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" or "properties" in schema:
        fields = schema.get("properties", {})
        values = {}
        for number, (name, field) in enumerate(fields.items()):
            values[name] = sample_of(field, words if number == 0 else words[:1])
        return values
    if kind == "array":
        return [sample_of(schema.get("items", {}), words)]
    simple: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "null": None}
    return simple[kind] if kind in simple else " ".join(words)
