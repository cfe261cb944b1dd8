"""Rate limits as gateways state them, where the window is not a minute by definition.

Forms, by draft of draft-ietf-httpapi-ratelimit-headers: `RateLimit-Limit: 10, 10;w=1` with
`-Remaining` and `-Reset` (03 to 06, and as `X-RateLimit-*` long before any), `RateLimit: limit=10,
remaining=9, reset=1` (07), `RateLimit: "burst";r=9;t=1` (08 and later); the windows stand in
`RateLimit-Policy: 10;w=1` or `"burst";q=10;w=1`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from penstock.wire.waits import NO_NUMBER, number

MINUTE_S = 60.0
LEAST_RESET_S = 30.0
"""What says no window, but resets within (30, 60] s, is taken for a minute; a reset is at most
the window, and most gateways count by the second, minute, hour or day."""
_TEXT_CHARS = 1024
_ITEM = re.compile(r'(?:"[^"]*"|[^,"])+')
_PART = re.compile(r'(?:"[^"]*"|[^;"])+')


@dataclass(frozen=True, slots=True)
class _StatedQuota:
    name: str
    quota: float
    window_s: float

    @property
    def per_min(self) -> float:
        return self.quota * MINUTE_S / self.window_s


def gateway_limits(headers: Mapping[str, str]) -> dict[str, float]:
    """Return the fields of `LimitsSeen` that a gateway's headers state; empty if none is usable.

    A limit is scaled to a minute by its window, and the tightest of several counts. Where no
    window is told, or one above a minute, there is none: a limit that is too low starves its
    callers, while one that is missing costs a 429.

    Args:
        headers: names without their `x-`: `ratelimit`, `ratelimit-policy`, `ratelimit-limit`,
            `ratelimit-remaining`, `ratelimit-reset` in seconds from now.

    """
    policies = _policies(headers.get("ratelimit-policy", ""))
    now = _now(headers)
    stated = _items(headers.get("ratelimit-limit", now.get("limit", "")))
    quota = number(stated[0][0]) if stated else None
    if stated and not policies:
        policies = _policies(headers.get("ratelimit-limit", ""))
    if quota is not None and not policies and _a_minute(now):
        policies = (_StatedQuota("", quota, MINUTE_S),)
    found = _no_numbers(stated[0][0] if stated else "", now)
    if any(each.per_min != each.per_min for each in policies):
        found["limit_requests"] = NO_NUMBER
    usable = [each for each in policies if each.window_s <= MINUTE_S and each.quota == each.quota]
    if not usable:
        return found
    tightest = min(usable, key=lambda each: each.per_min)
    found["limit_requests"] = tightest.per_min
    told_of = now.get("name", "") == tightest.name and quota in (None, tightest.quota)
    for field, part in (("remaining_requests", "remaining"), ("reset_requests_s", "reset")):
        value = number(now.get(part, ""))
        if told_of and value is not None:
            found[field] = value
    return found


def _no_numbers(quota: str, now: Mapping[str, str]) -> dict[str, float]:
    """Return the fields that are stated by what is no number."""
    texts = {
        "limit_requests": quota,
        "remaining_requests": now.get("remaining", ""),
        "reset_requests_s": now.get("reset", ""),
    }
    return {name: NO_NUMBER for name, text in texts.items() if text and number(text) is None}


def _a_minute(now: Mapping[str, str]) -> bool:
    reset_s = number(now.get("reset", ""))
    return reset_s is not None and LEAST_RESET_S < reset_s <= MINUTE_S


def _now(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what is said of this moment: name, limit, remaining and reset, where told."""
    told = {part: headers.get(f"ratelimit-{part}", "") for part in ("remaining", "reset")}
    for bare, parameters in _items(headers.get("ratelimit", "")):
        key, equals, value = bare.partition("=")
        if equals:
            told[key] = value
        else:  # the first item is the one that is nearest to its end
            return {
                "name": bare,
                "remaining": parameters.get("r", ""),
                "reset": parameters.get("t", ""),
            }
    return told


@lru_cache(maxsize=64)  # the same few with every answer
def _policies(text: str) -> tuple[_StatedQuota, ...]:
    """Return the policies that tell their quota of requests and their window.

    What is stated and is no number is `NO_NUMBER`.
    """
    found = []
    for bare, parameters in _items(text):
        named = "q" in parameters
        quota = number(parameters["q"] if named else bare)
        if named and quota is None:
            quota = NO_NUMBER
        window_s = number(parameters.get("w", ""))
        if "w" in parameters and window_s is None:
            window_s = NO_NUMBER
        if quota and window_s and parameters.get("qu", "requests") == "requests":
            found.append(_StatedQuota(bare if named else "", quota, window_s))
    return tuple(found)


def _items(text: str) -> list[tuple[str, dict[str, str]]]:
    """Return the items of a structured list, each with its parameters; quotes taken off."""
    items = []
    for item in _ITEM.findall(text[:_TEXT_CHARS]):  # cut: quotes that do not close cost a scan each
        parts = [part.strip() for part in _PART.findall(item)]
        if not parts:
            continue
        bare, *parameters = parts
        pairs = (part.partition("=") for part in parameters)
        items.append((bare.strip('"'), {key: value.strip('"') for key, _, value in pairs}))
    return items
