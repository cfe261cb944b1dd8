"""What a caller asks of the scheduler by `x-penstock-*` headers: one grammar, at every door."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from penstock.calls.facts import MOST_TOKENS
from penstock.calls.spec import STATED
from penstock.core.model import TokenEstimate

CLASS_HEADER = "x-penstock-class"
DEADLINE_HEADER = "x-penstock-deadline-ms"
TENANT_HEADER = "x-penstock-tenant"
SESSION_HEADER = "x-penstock-session"
ROUTE_HEADER = "x-penstock-route"
TOKENS_HEADER = "x-penstock-tokens"
FALLBACK_HEADER, NEVER = "x-penstock-fallback", "never"
REPEAT_HEADER = b"x-penstock-safe-to-repeat"
PROGRESS_HEADER = b"x-penstock-progress"
IGNORED_HEADER = b"x-penstock-ignored"
"""Of answers: which headers of the request would be hints and are none."""
MARK = b"x-penstock-"
TIMEOUT_HEADERS = (b"x-stainless-read-timeout", b"x-stainless-timeout")
"""By which the official SDKs say how many seconds they wait for an answer."""
HINT_HEADERS = frozenset(
    name.encode()
    for name in (
        CLASS_HEADER,
        DEADLINE_HEADER,
        TENANT_HEADER,
        SESSION_HEADER,
        ROUTE_HEADER,
        TOKENS_HEADER,
        FALLBACK_HEADER,
    )
)

_KNOWN = HINT_HEADERS | {REPEAT_HEADER, PROGRESS_HEADER}
_MARK_LENGTH = len(MARK)
_WORD = re.compile(r"[A-Za-z0-9_.:@/-]{1,128}\Z")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?\Z")
_SHOWN_CHARS = 40
_SHOWN_NAMES = 4


class HintError(ValueError):
    """A hint that cannot be; the text names the header, its value and the rule."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What is asked of the scheduler; None where nothing is said."""

    traffic_class: str | None = None
    deadline_s: float | None = None
    tenant: str | None = None
    session: str | None = None
    route: str | None = None
    tokens: TokenEstimate | None = None
    fallback: str | None = None

    def over(self, other: "Hints") -> "Hints":
        """Return these hints, with the other's where these say nothing."""
        if other is NO_HINTS:
            return self

        said = {name: value for name in HINTS if (value := getattr(self, name)) is not None}
        return replace(other, **said)


HINTS = ("traffic_class", "deadline_s", "tenant", "session", "route", "tokens")
NO_HINTS = Hints()


def hints_of(headers: Iterable[tuple[bytes, bytes]]) -> Hints:
    """Return the hints among these headers.

    Args:
        headers: with names in lower case; those of others are passed over.

    Raises:
        HintError: a hint is malformed or stands twice.

    """
    found: dict[str, str] = {}
    for raw_name, value in headers:
        if raw_name in HINT_HEADERS:
            name = raw_name.decode()
            if name in found:
                raise HintError(f"{name} must not stand twice: did a gateway add one of its own?")
            found[name] = value.decode("latin-1")
    if not found:
        return NO_HINTS
    return Hints(
        _word(found, CLASS_HEADER),
        _deadline_s(found),
        _word(found, TENANT_HEADER),
        _word(found, SESSION_HEADER),
        _word(found, ROUTE_HEADER),
        _tokens(found),
        _fallback(found),
    )


def timeout_s_of(head: Mapping[bytes, bytes]) -> float | None:
    """Return how long a caller's SDK waits for the answer, in seconds; None if it does not say.

    Args:
        head: the request's headers, with names in lower case.

    """
    for name in TIMEOUT_HEADERS:
        text = head.get(name, b"").decode("latin-1")
        if _NUMBER.match(text) and float(text) > 0:
            return float(text)
    return None


def ignored_of(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, ...]:
    """Return the names, in lower case, of headers that would be hints and are none."""
    return tuple(
        name.decode("latin-1")
        for name, _ in headers
        if name[:_MARK_LENGTH] == MARK and name not in _KNOWN
    )


def told_of(ignored: tuple[str, ...]) -> str:
    """Return what a caller is told of headers that would be hints and are none.

    They are not refused: the next version may know them.
    """
    known = sorted(each[_MARK_LENGTH:].decode() for each in _KNOWN)
    told = []
    for name in ignored[:_SHOWN_NAMES]:
        shown = name[:_SHOWN_CHARS].encode("ascii", "replace").decode()
        close = difflib.get_close_matches(shown[_MARK_LENGTH:], known, n=1)
        told.append(f"{shown} (did you mean {MARK.decode()}{close[0]}?)" if close else shown)
    return ", ".join(told)


def _word(found: dict[str, str], name: str) -> str | None:
    text = found.get(name)
    if text is not None and not _WORD.match(text):
        raise HintError(
            f"{name}={text[:_SHOWN_CHARS]!r} is no name: it must be 1 to 128 letters, digits or "
            "_.:@/-; was a text given instead of an id?"
        )
    return text


def _fallback(found: dict[str, str]) -> str | None:
    text = found.get(FALLBACK_HEADER)
    if text not in (None, NEVER):
        raise HintError(
            f"{FALLBACK_HEADER}={text[:_SHOWN_CHARS]!r} must be {NEVER}: a caller may forbid what "
            "[[fallbacks]] allow, and ask for nothing else."
        )
    return text


def _deadline_s(found: dict[str, str]) -> float | None:
    text = found.get(DEADLINE_HEADER)
    if text is None:
        return None
    if not _NUMBER.match(text) or float(text) <= 0:
        raise HintError(
            f"{DEADLINE_HEADER}={text[:_SHOWN_CHARS]!r} is no deadline: it must be a number of "
            "milliseconds above 0, counted from now; was a point in time given?"
        )
    return float(text) / 1000.0


def _tokens(found: dict[str, str]) -> TokenEstimate | None:
    text = found.get(TOKENS_HEADER)
    if text is None:
        return None
    p50, comma, p90 = text.partition(",")
    p90 = p90.strip() if comma else p50
    if _NUMBER.match(p50) and _NUMBER.match(p90) and 1 <= float(p50) <= float(p90) <= MOST_TOKENS:
        return TokenEstimate(float(p50), float(p90), STATED)
    raise HintError(
        f"{TOKENS_HEADER}={text[:_SHOWN_CHARS]!r} is no length of a reply: it must be a count of "
        "output tokens, at least 1, or a median and a 90th percentile such as 40,90; were the two "
        "swapped?"
    )
