"""What an upstream's answer means for the request: relay it, back off, or try elsewhere.

The page "reference/refusals" has a row for each provider; so has tests/wire/test_dialects.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.core.events import RefusalCause
from penstock.wire import jsonio
from penstock.wire.waits import (
    MESSAGE_CHARS,
    NO_NUMBER,
    now_by,
    retry_after_s,
    states_a_wait,
    wait_in_error,
)
from penstock.wire.words import message_of

QUOTA_RETRY_AFTER_S = 600.0
"""A 429 that asks for a longer wait than this is no momentary rate limit (ours, version 1):
days-long values are how vendors say that the account is spent."""

ERROR_BYTES, ERROR_S = 1 << 18, 10.0
"""How much of an error is read before it is judged, and for how long: it holds a slot, and what has
come of it says enough."""

_QUOTA_WORDS = re.compile(
    r"quota|insufficient_balance|credit|billing|budget_exceeded|(?:usage|spend)_limit|arrear|overdue"
    r"|setlimitexceeded|access_terminated|^1113$",  # Zhipu's number for an empty account
    re.MULTILINE,
)
_MOMENTARY = re.compile(r"per (?:second|minute)|^throttl", re.MULTILINE)
"""Cerebras says `token_quota_exceeded` of a minute's limit as of a day's; DashScope's
`Throttling.AllocationQuota` and `Throttling.RateQuota` are a minute's or a second's."""
_OVERLOAD_WORDS = re.compile(
    r"overload|slow_down|capacity|queue_exceeded|modelnotready|unavailable|^3505$", re.MULTILINE
)
_RATE_WORDS = frozenset({"throttlingexception", "rate_limit_error", "rate_limit_exceeded"})
_QUOTA_TEXTS = (
    "credit balance is too low",  # Anthropic, with a 400
    "reached your specified api usage limits",  # Anthropic's own spend limit, with a 400
    "too many tokens per day",  # Bedrock
    "free-models-per-day",  # OpenRouter
    "monthly spending limit",  # Fireworks, with a 412; xAI
    "daily free allocation",  # Cloudflare
    "usage limit, please upgrade",  # Ollama's cloud
    "key limit exceeded",  # OpenRouter, with a 403
    "balance is insufficient",  # SiliconFlow, with a 403
    "out of call volume quota",  # Azure API Management, with a 403
)
_OVERLOAD_TEXTS = (
    "model is overloaded",
    "experiencing high demand",
    "capacity exceeded",
    "capacity temporarily exceeded",  # Cloudflare
    "queue is full",  # SGLang
)
_NEVER_TEXTS = (
    "request too large",  # OpenAI, Groq: more than a minute's limit
    "must be reduced in order to run",
    "extra usage is required for long context",  # Anthropic
)
_LIMIT = re.compile(r"limit:? (\d{1,12})\b")
_REQUESTED = re.compile(r"requested:? (\d{1,12})\b")
_PER_DAY = "perday"
"""In Google's quota ids: "GenerateRequestsPerDayPerProjectPerModel-FreeTier"."""

_STATUS_OF_WORD = {
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    **dict.fromkeys(
        (
            "bio_policy",
            "empty_image_file",
            "failed_to_download_image",
            "image_content_policy_violation",
            "image_file_not_found",
            "image_file_too_large",
            "image_parse_error",
            "image_too_large",
            "image_too_small",
            "invalid_base64_image",
            "invalid_image",
            "invalid_image_format",
            "invalid_image_mode",
            "invalid_image_url",
            "unsupported_image_media_type",
        ),  # OpenAI's of a response that failed for what it was given
        400,
    ),
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "resource_exhausted": 429,
    "throttlingexception": 429,
    "overloaded_error": 529,
    "overloaded": 503,
    "server_is_overloaded": 503,
    "engine_overloaded": 503,
    "slow_down": 503,
    "unavailable": 503,
}
"""What an error inside a stream would have been as an HTTP status, by its code or type."""


@dataclass(frozen=True, slots=True)
class Relay:
    """The answer is the caller's: success, or an error that the caller made.

    Attributes:
        for_good: True if the provider refuses this request with a status that clients try again,
            though it can never pass: whoever gets the answer is told so.
        elsewhere: True if that is this provider's word about itself: another one may be asked.

    """

    for_good: bool = False
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Backoff:
    """The provider would not take the attempt (the core's `Throttled`).

    Attributes:
        retry_after_s: the wait that it states; None if none, `NO_NUMBER` if it is no time.

    """

    cause: RefusalCause
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Broken:
    """The provider failed (the core's `Failed`, retryable, the upstream's fault)."""


Meaning = Relay | Backoff | Broken
RELAY = Relay()
NEVER = Relay(for_good=True)
NEVER_HERE = Relay(for_good=True, elsewhere=True)
BROKEN = Broken()
_BROKEN_STATUSES = frozenset((408, 424, 460, 499))
"""424: TGI failed while it generated. 499 (nginx, Gemini) and 460 (AWS) say that whoever asked has
gone: as the caller is still there, that was somebody on the way."""
_JUDGED = frozenset((400, 402, 403, 412, 413, 429))
"""Statuses under which some provider hides that an account is spent or its pace too high."""


def is_spent(meaning: Meaning) -> bool:
    """Return whether an answer means that the account is spent: asking again soon is of no use."""
    return isinstance(meaning, Backoff) and meaning.cause is RefusalCause.QUOTA


def meaning_of(
    status: int, headers: Mapping[str, str], body: bytes = b"", *, wall_now: float
) -> Meaning:
    """Return what an upstream's answer means.

    Args:
        status: HTTP status.
        headers: with names in lower case.
        body: the error's body; may be empty.
        wall_now: seconds since 1970, for waits given as points in time.

    """
    if status < 400:
        return RELAY
    error = _error_in(body)
    meaning = _meaning(status, headers, error, wall_now)
    return _advised(headers.get("x-should-retry"), meaning)


def _meaning(
    status: int, headers: Mapping[str, str], error: Mapping[str, Any], wall_now: float
) -> Meaning:
    wait_s = retry_after_s(headers, wall_now=wall_now)
    if wait_s is None:
        wait_s = wait_in_error(error, wall_now=now_by(headers, wall_now))
    if wait_s is None and states_a_wait(headers):
        wait_s = NO_NUMBER
    if status in _JUDGED:
        return _judged(status, error, wait_s)
    if status in (498, 503, 529):  # 498: Groq's flex tier has no room
        return Backoff(RefusalCause.OVERLOAD, wait_s)
    if status in _BROKEN_STATUSES or status >= 500:
        return BROKEN
    return RELAY


def _judged(status: int, error: Mapping[str, Any], wait_s: float | None) -> Meaning:
    words = _words(error)
    message = message_of(error)[:MESSAGE_CHARS].lower()
    spent = _QUOTA_WORDS.search(words) and not _MOMENTARY.search(f"{words}\n{message}")
    if status in (402, 412) or spent or _any_in(_QUOTA_TEXTS, message):
        return Backoff(RefusalCause.QUOTA, wait_s)
    throttled = status == 429 or not _RATE_WORDS.isdisjoint(words.split("\n"))
    if not throttled:
        return RELAY
    if _too_large(message):
        return NEVER
    if _spent_for_today(error):
        return Backoff(RefusalCause.QUOTA, None)  # its delay is that of the next minute
    if _OVERLOAD_WORDS.search(words) or _any_in(_OVERLOAD_TEXTS, message):
        return Backoff(RefusalCause.OVERLOAD, wait_s)
    if wait_s is not None and wait_s > QUOTA_RETRY_AFTER_S:
        return Backoff(RefusalCause.QUOTA, wait_s)
    return Backoff(RefusalCause.RATE, wait_s)


def _advised(advice: str | None, meaning: Meaning) -> Meaning:
    """Return the meaning as the provider's `x-should-retry` has it; a spent account stays so."""
    if advice == "false" and not isinstance(meaning, Relay):
        spent = isinstance(meaning, Backoff) and meaning.cause is RefusalCause.QUOTA
        return meaning if spent else NEVER_HERE
    if advice == "true" and meaning == RELAY:
        return BROKEN
    return meaning


def meaning_of_error(error: Mapping[str, Any]) -> Meaning:
    """Return what an error inside a stream means, as if it had come with its own status.

    An error that nobody knows is the provider's: the request had been accepted.

    Args:
        error: with `code` or `type`, as the vendor words it.

    """
    status = status_of_error(error)
    return BROKEN if status is None else _meaning(status, {}, error, 0.0)


def status_of_error(error: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that an error would have come with, or None if it does not say."""
    for key in ("code", "status_code", "status", "type"):
        word = error.get(key)
        status = _STATUS_OF_WORD.get(word.lower()) if isinstance(word, str) else word
        if status is None and isinstance(word, str) and len(word) == 3 and word.isdecimal():
            status = int(word)
        if isinstance(status, int) and 400 <= status <= 599:
            return status
    return None


def _words(error: Mapping[str, Any]) -> str:
    """Return an error's codes and types, in lower case, one a line."""
    found = (error.get(key) for key in ("code", "type", "status", "error_type", "__type"))
    return "\n".join(word[:MESSAGE_CHARS].lower() for word in found if isinstance(word, str))


def _any_in(texts: tuple[str, ...], message: str) -> bool:
    return any(text in message for text in texts)


def _too_large(message: str) -> bool:
    """Return whether one request asks for more than a minute's limit: it can never pass."""
    if _any_in(_NEVER_TEXTS, message):
        return True
    limit, requested = _LIMIT.search(message), _REQUESTED.search(message)
    return bool(limit and requested and int(requested[1]) > int(limit[1]))


def _spent_for_today(error: Mapping[str, Any]) -> bool:
    """Return whether Google's details name a daily quota."""
    details = error.get("details")
    for detail in details[:64] if isinstance(details, list) else ():
        violations = detail.get("violations") if isinstance(detail, dict) else None
        for each in violations[:64] if isinstance(violations, list) else ():
            if isinstance(each, dict) and _PER_DAY in str(each.get("quotaId", "")).lower():
                return True
    return False


def _error_in(body: bytes) -> Mapping[str, Any]:
    """Return the error that a body holds; what is only a text counts as its message."""
    try:
        parsed = jsonio.loads(body) if body else None
    except (ValueError, RecursionError):
        return {}
    if isinstance(parsed, list) and parsed:  # Gemini puts its error into a list
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error", parsed)
    if isinstance(error, str):  # TGI, Fireworks
        return {**parsed, "message": error}
    return error if isinstance(error, dict) else {}
