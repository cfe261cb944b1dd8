"""Log probabilities as OpenAI's chats, old completions and responses state them."""

import zlib
from typing import Any

from penstock.sim.mock import reading
from penstock.sim.mock.call import BodyError, MockCall
from penstock.sim.mock.words import reply_words

_MOST_ALTERNATIVES, _MOST_LEGACY = 20, 5
_HASHES = 1 << 32


def logprobs(call: MockCall, pieces: list[str]) -> dict[str, Any] | None:
    """Return the object for these tokens of a text; None if none was asked for.

    A token's probability depends on its text alone: between 0.5 and 1, the alternatives share
    what is left.

    Raises:
        BodyError: the count of alternatives is none that the vendor takes.

    """
    if not reading.flag_of(call.body, "logprobs") or call.tool is not None:
        return None
    return {
        "content": [_token(piece, alternatives_of(call.body)) for piece in pieces],
        "refusal": None,
    }


def legacy_logprobs(call: MockCall, pieces: list[str]) -> dict[str, Any] | None:
    """Return the object of the old completions; None if none was asked for."""
    wanted = legacy_alternatives_of(call.body)
    if wanted is None:
        return None
    tokens = [_token(piece, wanted) for piece in pieces]
    ranked = [{each["token"]: each["logprob"] for each in one["top_logprobs"]} for one in tokens]
    return {
        "tokens": pieces,
        "token_logprobs": [one["logprob"] for one in tokens],
        "top_logprobs": ranked if wanted else None,
        "text_offset": [sum(map(len, pieces[:n])) for n in range(len(pieces))],
    }


def response_logprobs(call: MockCall, pieces: list[str]) -> list[dict[str, Any]]:
    """Return those of a response's text; none if `include` does not ask for them."""
    wanted = response_alternatives_of(call.body)
    return [] if wanted is None else [_token(piece, wanted) for piece in pieces]


def legacy_alternatives_of(body: Any) -> int | None:
    """Return how many alternatives an old completion asks for: its `logprobs` is their count.

    Raises:
        BodyError: they are too many, or none that can be counted.

    """
    wanted = body.get("logprobs")
    return None if wanted is None else _count(wanted, "logprobs", _MOST_LEGACY)


def response_alternatives_of(body: Any) -> int | None:
    """Return how many alternatives a response asks for; None if it wants no log probabilities.

    Raises:
        BodyError: they are too many, or none that can be counted.

    """
    asked = body.get("include")
    if not isinstance(asked, list) or "message.output_text.logprobs" not in asked:
        return None
    return _count(body.get("top_logprobs", 0), "top_logprobs", _MOST_ALTERNATIVES)


def alternatives_of(body: Any) -> int:
    """Return how many alternatives a body asks for.

    Raises:
        BodyError: they are too many, or none that can be counted.

    """
    wanted = body.get("top_logprobs")
    if wanted is None:
        return 0
    count = _count(wanted, "top_logprobs", _MOST_ALTERNATIVES)
    if not body.get("logprobs"):
        raise BodyError("'top_logprobs' needs 'logprobs' to be true", "top_logprobs")
    return count


def _count(value: object, name: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise BodyError(f"Invalid value for '{name}': must be 0 to {most}", name)
    return value


def _token(text: str, alternatives: int) -> dict[str, Any]:
    hashed = zlib.crc32(text.encode())
    first = -0.6931 * hashed / _HASHES
    others = [f" {word}" for word in reply_words(hashed, max(0, alternatives - 1))]
    ranked = [(text, first), *((word, -2.0 - n) for n, word in enumerate(others))]
    return _entry(text, first) | {"top_logprobs": [_entry(*each) for each in ranked[:alternatives]]}


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": round(logprob, 6), "bytes": list(text.encode())}
