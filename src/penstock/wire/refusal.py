"""What an upstream's answer means for the request: relay it, back off, or try elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from penstock.core.events import RefusalCause
from penstock.wire import jsonio

QUOTA_RETRY_AFTER_S = 600.0
"""A 429 that asks for a longer wait than this is no momentary rate limit (ours, version 1):
days-long values are how vendors say that the account is spent."""

_QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "access_terminated",
        "quota_exceeded",
        "insufficient_balance",
    }
)
_STATUS_OF_WORD = {
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded_error": 529,
    "overloaded": 503,
    "server_is_overloaded": 503,
    "slow_down": 503,
}
"""What an error inside a stream would have been as an HTTP status, by its code or type."""

_SPENT_TEXT = "credit balance is too low"
"""Anthropic says this with a 400."""


@dataclass(frozen=True, slots=True)
class Relay:
    """The answer is the caller's: success, or an error that the caller made."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The provider would not take the attempt (the core's `Throttled`)."""

    cause: RefusalCause
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Broken:
    """The provider failed (the core's `Failed`, retryable, the upstream's fault)."""


Meaning = Relay | Backoff | Broken
RELAY = Relay()
BROKEN = Broken()


def needs_body(status: int) -> bool:
    """Say whether `meaning_of` can use the body of an answer with this status."""
    return status in (400, 403, 429)


def meaning_of(
    status: int, headers: Mapping[str, str], body: bytes = b"", *, wall_now: float
) -> Meaning:
    """Return what an upstream's answer means.

    Args:
        status: HTTP status.
        headers: with names in lower case.
        body: the error's body; may be empty.
        wall_now: seconds since 1970, for a retry-after given as a date.

    """
    if status < 400:
        return RELAY
    if status in (400, 402, 403, 429):
        return _maybe_spent(status, headers, body, wall_now)
    if status in (498, 503, 529):  # 498: Groq's flex tier has no room
        return Backoff(RefusalCause.OVERLOAD, retry_after_s(headers, wall_now=wall_now))
    if status in (408, 500, 502, 504) or 520 <= status <= 526:  # 52x: a CDN's upstream broke
        return BROKEN
    return RELAY


def meaning_of_error(error: Mapping[str, Any]) -> Meaning:
    """Return what an error inside a stream means, as if it had come with its own status.

    An error that nobody knows is the provider's: the request had been accepted.

    Args:
        error: with `code` or `type`, as the vendor words it.

    """
    for key in ("code", "status_code", "status", "type"):
        word = error.get(key)
        status = _STATUS_OF_WORD.get(word) if isinstance(word, str) else word
        if status is None and isinstance(word, str) and word.isdecimal():
            status = int(word)
        if isinstance(status, int) and 400 <= status <= 599:
            body = jsonio.dumps({"error": error})
            return meaning_of(status, {}, body, wall_now=0.0)
    return BROKEN


def retry_after_s(headers: Mapping[str, str], *, wall_now: float) -> float | None:
    """Return how long the provider wants us to wait, in seconds; None if it does not say.

    Reads `retry-after-ms`, then `retry-after` as seconds (fractions too) or as a date.
    """
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            wait_s = float(text) * scale
        except ValueError:
            continue
        if 0 <= wait_s < float("inf"):
            return wait_s
    return _until_date_s(headers.get("retry-after"), wall_now)


def _until_date_s(text: str | None, wall_now: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall_now) if text else None
    except ValueError:
        return None


def _maybe_spent(status: int, headers: Mapping[str, str], body: bytes, wall_now: float) -> Meaning:
    wait_s = retry_after_s(headers, wall_now=wall_now)
    error = _error_in(body)
    words = {str(error.get(key, "")).lower() for key in ("code", "type")}
    spent = bool(words & _QUOTA_CODES) or _SPENT_TEXT in str(error.get("message", "")).lower()
    if status == 402 or spent:
        return Backoff(RefusalCause.QUOTA, wait_s)
    if status != 429:
        return RELAY
    if wait_s is not None and wait_s > QUOTA_RETRY_AFTER_S:
        return Backoff(RefusalCause.QUOTA, wait_s)
    if "overloaded_error" in words:
        return Backoff(RefusalCause.OVERLOAD, wait_s)
    return Backoff(RefusalCause.RATE, wait_s)


def _error_in(body: bytes) -> dict[str, Any]:
    parsed = jsonio.loads_object(body) if body else None
    error = (parsed or {}).get("error", parsed)
    return error if isinstance(error, dict) else {}
