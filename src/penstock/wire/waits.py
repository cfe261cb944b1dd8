"""How long a provider wants us to wait: from headers, from bodies, in every form that they use.

Whatever is no time says nothing. All readers take bounded time: texts are cut before a pattern is
tried, so that a header of a megabyte costs no more than one of a line.
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

MOST_CHARS = 64
"""No number, span or date is longer."""
NO_NUMBER = math.nan
"""For what is stated and is no number or time: the core's gate ignores it, and counts it."""
MOST_WAIT_S = 30 * 86_400.0
"""A month, the longest period that anybody bills; nothing is waited for that long anyway."""
MESSAGE_CHARS = 2000
"""How much of an error's sentence is looked at."""

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|us|[dhms])")
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_EPOCH_S, _EPOCH_MS = 1e9, 1e11
"""A plain reset above this many seconds is a point in time (2001), not a span; a hundred times
as much is one in milliseconds."""
_NO_DATE = (ValueError, TypeError, OverflowError, OSError, IndexError)
_AGAIN = re.compile(
    r"(?:again|retry|wait) (?:in|after|for) "
    r"(?:((?:\d{1,9}(?:\.\d{1,9})?(?:ms|[dhms])){1,4})\b"
    r"|(\d{1,9}(?:\.\d{1,9})?) (millisecond|second|minute|hour|day))",
    re.IGNORECASE,
)
_WAIT_HEADERS = (
    ("retry-after-ms", 1e-3),
    ("x-ms-retry-after-ms", 1e-3),
    ("retry-after", 1.0),
    ("x-rate-limit-reset-tokens", 1.0),  # Azure's, at times in place of all others
    ("llm_provider-retry-after", 1.0),  # LiteLLM's proxy: of the provider behind it
)
_WORD_S = {"millisecond": 1e-3, "second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}


def number(text: str) -> float | None:
    """Return a finite number, 0 or above; None if the text is none."""
    if len(text) > MOST_CHARS:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


@lru_cache(maxsize=512)  # far from a limit it is the same few milliseconds again and again
def span_s(text: str) -> float | None:
    """Return the seconds of a span such as "6m0s" or "1.5s"; None if the text is none."""
    text = text.strip()
    if len(text) > MOST_CHARS:
        return None
    spans = _SPAN.findall(text)
    if spans and "".join(number + unit for number, unit in spans) == text:
        return min(MOST_WAIT_S, sum(float(number) * _UNIT_S[unit] for number, unit in spans))
    return None


def reset_s(text: str, headers: Mapping[str, str], wall_now: float) -> float | None:
    """Return seconds from now until a reset; None if the text is no time.

    Args:
        text: a span, a number of seconds, or a point in time.
        headers: of the answer, for its own clock.
        wall_now: seconds since 1970, if it has none.

    """
    span = span_s(text)
    if span is not None:
        return span
    text = text.strip()
    plain = number(text)
    if plain is not None:
        if plain < _EPOCH_S:
            return min(plain, MOST_WAIT_S)
        moment_s = plain if plain < _EPOCH_MS else plain / 1000.0
        return _until(moment_s, now_by(headers, wall_now))
    if len(text) > MOST_CHARS:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if not moment.tzinfo:
            return None
        return _until(moment.timestamp(), now_by(headers, wall_now))
    except _NO_DATE:
        return None


def retry_after_s(headers: Mapping[str, str], *, wall_now: float) -> float | None:
    """Return how long the provider wants us to wait, in seconds; None if it does not say.

    Reads `retry-after-ms` (Azure's also with `x-ms-` before it), then `retry-after` as seconds
    (fractions too) or as a date, then the names of Azure and of LiteLLM's proxy; some write a span
    such as "1s", or a date as in ISO 8601.
    """
    for name, scale in _WAIT_HEADERS:
        value = number(headers.get(name, ""))
        if value is not None:
            return min(value * scale, MOST_WAIT_S)
    text = headers.get("retry-after", "")
    moment_s = date_s(text)
    if moment_s is None:
        return reset_s(text, headers, wall_now)
    return _until(moment_s, now_by(headers, wall_now))


def states_a_wait(headers: Mapping[str, str]) -> bool:
    """Return whether a header is there that says how long to wait, whatever stands in it."""
    return any(headers.get(name) for name, _ in _WAIT_HEADERS)


def wait_in_error(error: Mapping[str, Any], *, wall_now: float) -> float | None:
    """Return the wait that an error's body states; None if none, `NO_NUMBER` if it is no time.

    Google's `RetryInfo`, OpenRouter's reset among its `metadata`, and sentences such as "Please try
    again in 1m2.5s", "Please retry after 26 seconds".
    """
    stated_s = None
    for detail in _dicts(error.get("details")):
        delay = detail.get("retryDelay")
        if delay:
            span = span_s(delay) if isinstance(delay, str) else None
            if span is not None:
                return span
            stated_s = NO_NUMBER
    metadata = error.get("metadata")
    stated = metadata.get("headers") if isinstance(metadata, dict) else None
    if isinstance(stated, dict):
        for name, value in list(stated.items())[:MOST_CHARS]:
            if isinstance(name, str) and name.lower() == "x-ratelimit-reset":
                reset = reset_s(str(value)[: MOST_CHARS + 1], {}, wall_now)
                if reset is not None:
                    return reset
                stated_s = NO_NUMBER if isinstance(value, str | int | float) else None
    wait_s = _wait_in_words(str(error.get("message", ""))[:MESSAGE_CHARS])
    return stated_s if wait_s is None else wait_s


def _wait_in_words(message: str) -> float | None:
    match = _AGAIN.search(message)
    if match is None:
        return None
    span, amount, word = match.groups()
    if span:
        return span_s(span.lower())
    return min(MOST_WAIT_S, float(amount) * _WORD_S[word.lower()])


def _dicts(value: object) -> list[dict[str, Any]]:
    items = value if isinstance(value, list) else []
    return [item for item in items[:MOST_CHARS] if isinstance(item, dict)]


def _until(moment_s: float, now_s: float) -> float:
    return min(MOST_WAIT_S, max(0.0, moment_s - now_s))


def now_by(headers: Mapping[str, str], wall_now: float) -> float:
    """Return seconds since 1970 by the answer's own clock: this machine's may be hours off."""
    return date_s(headers.get("date", "")) or wall_now


@lru_cache(maxsize=16)  # it changes once a second, and the parser takes its time (20 us)
def date_s(text: str) -> float | None:
    """Return the seconds since 1970 of an HTTP date; None if the text is none."""
    if not text or len(text) > MOST_CHARS:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except _NO_DATE:
        return None
