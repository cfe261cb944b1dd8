"""What an answer means for a line of a batch: only the provider's verdict on the line is final."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penstock.batch.lines import BatchLine
from penstock.core.events import RefusalCause
from penstock.errors import Refused
from penstock.wire import jsonio
from penstock.wire.errors import refused_of_facts
from penstock.wire.refusal import QUOTA_RETRY_AFTER_S, Backoff, Meaning, Relay, meaning_of
from penstock.wire.usage import UNKNOWN, Usage
from penstock.wire.verdict import REDIRECT, verdict_of_reply
from penstock.wire.waits import NO_NUMBER, retry_after_s
from penstock.wire.words import message_of

LONGEST_WAIT_S = 3600.0
"""A stated wait above this is not waited for: the run ends and says so. An hour is the longest
window below a day's that providers meter by, and nobody keeps a terminal open for a day's."""

_WORDS_CHARS = 200
_OF_THE_CALL = frozenset(
    {
        "class_not_allowed",
        "deadline_not_allowed",
        "invalid_header",
        "tenant_not_allowed",
        "unknown_class",
    }
)
"""A sidecar's codes for what every line of a batch asks alike."""


class Standing(StrEnum):
    """What is to be done with the line."""

    RESULT = "result"
    """It is answered: the reply holds what its endpoint returns."""
    REFUSED = "refused"
    """The provider refuses this line for good, in its own words."""
    THROTTLED = "throttled"
    """There is no room now: it is sent again after a wait, as often as it takes."""
    BROKEN = "broken"
    """There is no usable answer: it is sent again, some times."""
    BLOCKED = "blocked"
    """No other line can succeed either: the run ends."""
    ELSEWHERE = "elsewhere"
    """A page came, not an answer of the API: the run ends if some do, and no answer does."""
    UNSENT = "unsent"
    """Our own gate was closed."""


@dataclass(frozen=True, slots=True)
class BatchReply:
    """What came back.

    Attributes:
        status: HTTP status; 0 if no answer came.
        request_id: the provider's, for its support.
        body: parsed; the text if it is no JSON object, or one nested deeper than is read.
        usage: as reported.
        standing: what is to be done with the line.
        why: what is wrong, in words, where it is no result.
        wait_s: how long the provider wants us to wait, where it says so.
        away: True if there was no connection at all.
        ours: True if penstock refused the line; the provider has not seen it.

    """

    status: int
    request_id: str = ""
    body: Any = None
    usage: Usage = field(default_factory=lambda: UNKNOWN)
    standing: Standing = Standing.RESULT
    why: str = ""
    wait_s: float | None = None
    away: bool = False
    ours: bool = False


def reply_of(
    line: BatchLine,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    refused: Refused | None,
    *,
    wall_now: float,
    misdirected: str = "",
) -> BatchReply:
    """Return what an HTTP answer means for its line.

    Args:
        line: that was sent.
        status: HTTP status.
        headers: with names in lower case.
        body: without its content encoding.
        refused: the refusal of the gate in this process, if it is one.
        wall_now: seconds since 1970, for waits given as points in time.
        misdirected: how it looks as if the base URL led elsewhere, where the transport has seen it.

    """
    strict = jsonio.loads_object(body)
    parsed = jsonio.lenient_object(body) if strict is None else strict
    is_text = parsed is None or (strict is None and jsonio.is_deep(body))
    standing, why, wait_s, usage = _judged(line, status, headers, body, wall_now)
    if misdirected:
        standing, why, wait_s = _elsewhere(misdirected)
    ours = refused or _sidecars_refusal(parsed)
    if ours is not None:
        standing, why, wait_s = _of_refusal(ours, sidecar=refused is None)
    elif status in (401, 403, 400) and _code(parsed) in _OF_THE_CALL:
        standing, why = Standing.BLOCKED, f"the sidecar says: {message_of(parsed)[:_WORDS_CHARS]}"
    if wait_s is not None and wait_s > LONGEST_WAIT_S:
        standing = Standing.BLOCKED
        why += f"; the provider asks to wait for {wait_s / 3600:.1f} hours"
    return BatchReply(
        status,
        headers.get("x-request-id") or headers.get("request-id") or "",
        body.decode(errors="replace") if is_text else parsed,
        usage,
        standing,
        _fit(why),
        wait_s,
        ours=ours is not None,
    )


_Judged = tuple[Standing, str, float | None, Usage]


def _judged(
    line: BatchLine, status: int, headers: Mapping[str, str], body: bytes, wall_now: float
) -> _Judged:
    if status < 400:
        verdict = verdict_of_reply(line.endpoint.kind, status, body)
        if verdict.good:
            return Standing.RESULT, "", None, verdict.usage
        if verdict.misdirected:
            return *_elsewhere(verdict.fault), UNKNOWN
        return *_of_meaning(verdict.meaning, verdict.status, body), UNKNOWN
    # Without the advice: our own transport and the sidecar write it for SDKs.
    plain = {name: word for name, word in headers.items() if name != "x-should-retry"}
    meaning = meaning_of(status, plain, body, wall_now=wall_now)
    standing, why, wait_s = _of_meaning(meaning, status, body)
    if wait_s is None:
        wait_s = retry_after_s(headers, wall_now=wall_now)
    return standing, why, wait_s, UNKNOWN


def _elsewhere(fault: str) -> tuple[Standing, str, None]:
    standing = Standing.BLOCKED if fault == REDIRECT else Standing.ELSEWHERE
    return standing, f"the base URL {fault}: does it lead to the provider's API?", None


def _of_meaning(meaning: Meaning, status: int, body: bytes) -> tuple[Standing, str, float | None]:
    """Return what a refusal or an error means for the line, why in words, and the stated wait."""
    parsed = jsonio.lenient_object(body)
    words = message_of(parsed)[:_WORDS_CHARS]
    said = f"HTTP {status}{f': {words}' if words else ''}"
    if status == 401:
        why = "the API key is refused (HTTP 401): is it set, and meant for this base URL?"
        return Standing.BLOCKED, why, None
    if isinstance(meaning, Backoff):
        wait_s = None if meaning.retry_after_s is NO_NUMBER else meaning.retry_after_s
        by_length = wait_s is not None and QUOTA_RETRY_AFTER_S < wait_s <= LONGEST_WAIT_S
        if meaning.cause is not RefusalCause.QUOTA or by_length:
            return Standing.THROTTLED, said, wait_s
        why = f"the account is spent (HTTP {status}): is there a limit or a bill to look after?"
        return Standing.BLOCKED, why, wait_s
    if not isinstance(meaning, Relay) or status == 409:  # 409: a lock that somebody holds
        return Standing.BROKEN, said, None
    if status in (404, 405) and not _is_error(parsed):
        why = f"nothing is there (HTTP {status}): does the base URL lead to the provider's API?"
        return Standing.ELSEWHERE, why, None
    if parsed is None:  # what stands in front of the provider says so, a firewall perhaps
        return Standing.BROKEN, f"{said}, which is no answer of a provider's", None
    return Standing.REFUSED, said, None


def _of_refusal(refused: Refused, *, sidecar: bool) -> tuple[Standing, str, float | None]:
    """Return what a refusal of penstock's own means; the provider has not seen the line."""
    wait_s = _wait_of(refused)
    if refused.reason == "draining" and not sidecar:
        return Standing.UNSENT, "", None
    if refused.reason == "quota" and (wait_s is None or wait_s > LONGEST_WAIT_S):
        why = "the account is spent: is there a limit or a bill to look after?"
        return Standing.BLOCKED, why, None
    if refused.reason in ("too_large", "fault"):
        return Standing.BROKEN, str(refused), None
    return Standing.THROTTLED, str(refused), None if wait_s is None else max(wait_s, 0.001)


def _wait_of(refused: Refused) -> float | None:
    """Return the wait that a refusal states, if it is one: a sidecar's comes over the network."""
    wait_s: object = refused.retry_after_s
    usable = isinstance(wait_s, int | float) and 0 <= wait_s < math.inf
    return float(wait_s) if usable and isinstance(wait_s, int | float) else None


def _sidecars_refusal(parsed: Mapping[str, Any] | None) -> Refused | None:
    error = (parsed or {}).get("error")
    facts = error.get("penstock") if isinstance(error, dict) else None
    try:
        return refused_of_facts(facts) if isinstance(facts, dict) else None
    except (KeyError, TypeError, ValueError):  # somebody else's object of that name
        return None


def _is_error(parsed: Mapping[str, Any] | None) -> bool:
    return parsed is not None and (bool(parsed.get("error")) or parsed.get("object") == "error")


def _code(parsed: Mapping[str, Any] | None) -> str:
    error = (parsed or {}).get("error")
    if not isinstance(error, dict):
        return ""
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else error.get("code")
    return code if isinstance(code, str) else ""


def _fit(text: str) -> str:
    """Return a text with words of others in it as a terminal may have it."""
    return "".join(each if each.isprintable() else " " for each in text[: 2 * _WORDS_CHARS])
