"""Rate-limit headers in the vendors' dialects, turned into what the core understands.

Dialects (each seen in the vendor's documentation): OpenAI `x-ratelimit-{limit,remaining,reset}-
{requests,tokens}` with resets such as "6m0s"; Azure OpenAI the same names with plain seconds;
Groq the same names, but its *requests* count a day, not a minute; Anthropic
`anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}` with
points in time; and plain `(x-)ratelimit-{limit,remaining,reset}` as gateways send.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

from penstock.core.events import LimitsSeen

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|us|[dhms])")
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_EPOCH_S = 1e9
"""A plain reset above this many seconds is a point in time (2001), not a span."""
_MARKS = ("x-ratelimit-", "anthropic-ratelimit-", "ratelimit-")


def limits_of(upstream: str, headers: Mapping[str, str], *, wall_now: float) -> LimitsSeen | None:
    """Return the limits that an answer states; None if it states none.

    Args:
        upstream: whose answer it is.
        headers: with names in lower case.
        wall_now: seconds since 1970, for resets given as points in time; the answer's own
            `date`, where it has one, is taken instead, so that a wrong clock does not matter.

    """
    if not any(name.startswith(_MARKS) for name in headers):
        return None
    wall_now = _date_s(headers.get("date")) or wall_now
    read: dict[str, float | None] = {}
    for what, (limit, remaining, reset) in _names(headers).items():
        read[f"limit_{what}"] = _number(headers.get(limit))
        read[f"remaining_{what}"] = _number(headers.get(remaining))
        read[f"reset_{what}_s"] = _reset_s(headers.get(reset), wall_now)
    found = {field: value for field, value in read.items() if value is not None}
    _drop_daily_requests(headers, found)
    return LimitsSeen(upstream, **found) if found else None


def _names(headers: Mapping[str, str]) -> dict[str, tuple[str, str, str]]:
    if any(name.startswith("anthropic-ratelimit-") for name in headers):
        return {
            what: tuple(  # type: ignore[misc]
                f"anthropic-ratelimit-{what.replace('_', '-')}-{part}"
                for part in ("limit", "remaining", "reset")
            )
            for what in ("requests", "tokens", "input_tokens", "output_tokens")
        }
    if any(name.startswith("x-ratelimit-") and name.count("-") == 3 for name in headers):
        return {
            what: tuple(  # type: ignore[misc]
                f"x-ratelimit-{part}-{what}" for part in ("limit", "remaining", "reset")
            )
            for what in ("requests", "tokens")
        }
    prefix = "x-ratelimit-" if "x-ratelimit-limit" in headers else "ratelimit-"
    return {"requests": (f"{prefix}limit", f"{prefix}remaining", f"{prefix}reset")}


def _drop_daily_requests(headers: Mapping[str, str], found: dict[str, float]) -> None:
    """Keep a limit on requests a day from being taken for one a minute.

    Only its exhaustion matters here; pacing a day's quota evenly would hold work back.
    """
    if not any(name.startswith("x-groq-") for name in headers):
        return
    found.pop("limit_requests", None)
    if found.get("remaining_requests", 1.0) > 0:
        found.pop("remaining_requests", None)
        found.pop("reset_requests_s", None)


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        # "100, 100;w=60": the first number is the limit that is nearest.
        value = float(re.split(r"[,;]", text, maxsplit=1)[0])
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def _reset_s(text: str | None, wall_now: float) -> float | None:
    """Return seconds from now; None if the text is no time."""
    if text is None:
        return None
    text = text.strip()
    plain = _number(text)
    if plain is not None:
        return plain if plain < _EPOCH_S else max(0.0, plain - wall_now)
    spans = _SPAN.findall(text)
    if spans and "".join(number + unit for number, unit in spans) == text:
        return sum(float(number) * _UNIT_S[unit] for number, unit in spans)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - wall_now) if moment.tzinfo else None


def _date_s(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None
