"""Log probabilities as OpenAI's chat completions state them."""

import zlib
from typing import Any

from penstock.sim.mock import reading
from penstock.sim.mock.call import BodyError, MockCall
from penstock.sim.mock.words import reply_words

_MOST_ALTERNATIVES = 20
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


def alternatives_of(body: Any) -> int:
    """Return how many alternatives a body asks for.

    Raises:
        BodyError: they are too many, or none that can be counted.

    """
    wanted = body.get("top_logprobs")
    if wanted is None:
        return 0
    if type(wanted) is not int or not 0 <= wanted <= _MOST_ALTERNATIVES:
        raise BodyError(
            f"Invalid value for 'top_logprobs': must be 0 to {_MOST_ALTERNATIVES}", "top_logprobs"
        )
    if not body.get("logprobs"):
        raise BodyError("'top_logprobs' needs 'logprobs' to be true", "top_logprobs")
    return wanted


def _token(text: str, alternatives: int) -> dict[str, Any]:
    hashed = zlib.crc32(text.encode())
    first = -0.6931 * hashed / _HASHES
    others = [f" {word}" for word in reply_words(hashed, max(0, alternatives - 1))]
    ranked = [(text, first), *((word, -2.0 - n) for n, word in enumerate(others))]
    return _entry(text, first) | {"top_logprobs": [_entry(*each) for each in ranked[:alternatives]]}


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": round(logprob, 6), "bytes": list(text.encode())}
