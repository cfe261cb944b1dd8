"""How each vendor states its limits and its refusals in response headers.

Sources:
    OpenAI, "Rate limits" guide; Azure OpenAI, "Quotas and limits"; Anthropic, "Rate limits";
    Groq, "Rate limits". As documented in November 2026.

"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from penstock.sim.providers.base import Limit

Limits = Mapping[str, Limit]
"""By name: requests, tokens, input_tokens, output_tokens, requests_per_day."""


def limit_headers(dialect: str, limits: Limits, *, unix_now_s: float) -> dict[str, str]:
    """Return the headers in which this vendor states these limits."""
    return _WRITERS[dialect](limits, unix_now_s)


def retry_headers(dialect: str, retry_after_s: float | None) -> dict[str, str]:
    """Return the headers in which this vendor asks for a pause."""
    if retry_after_s is None:
        return {}
    headers = {"retry-after": str(math.ceil(retry_after_s))}
    if dialect in ("openai", "azure"):
        headers["retry-after-ms"] = str(math.ceil(retry_after_s * 1000))
    return headers


def go_duration(seconds: float) -> str:
    """Write a duration as OpenAI and Groq do: 20ms, 7.66s, 6m0s, 2h3m0.5s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest_s = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{round(rest_s, 3):g}s"
    if minutes or hours:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _whole(value: float) -> str:
    return str(max(0, math.floor(value)))


def _ratelimit(
    names: Mapping[str, str], duration: Callable[[float], str]
) -> Callable[[Limits, float], dict[str, str]]:
    """Return the writer of `x-ratelimit-*` headers, whose last words stand for these limits."""

    def write(limits: Limits, _unix_now_s: float) -> dict[str, str]:
        out: dict[str, str] = {}
        for word, name in names.items():
            if name in limits:
                limit = limits[name]
                out[f"x-ratelimit-limit-{word}"] = _whole(limit.limit)
                out[f"x-ratelimit-remaining-{word}"] = _whole(limit.remaining)
                out[f"x-ratelimit-reset-{word}"] = duration(limit.reset_s)
        return out

    return write


def _anthropic(limits: Limits, unix_now_s: float) -> dict[str, str]:
    out: dict[str, str] = {}
    for name in ("requests", "tokens", "input_tokens", "output_tokens"):
        if name in limits:
            limit, prefix = limits[name], f"anthropic-ratelimit-{name.replace('_', '-')}"
            reset = datetime.fromtimestamp(unix_now_s, UTC) + timedelta(seconds=limit.reset_s)
            out[f"{prefix}-limit"] = _whole(limit.limit)
            out[f"{prefix}-remaining"] = _whole(limit.remaining)
            out[f"{prefix}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return out


_MINUTE = {"requests": "requests", "tokens": "tokens"}
_WRITERS: dict[str, Callable[[Limits, float], dict[str, str]]] = {
    "openai": _ratelimit(_MINUTE, go_duration),
    "azure": _ratelimit(_MINUTE, lambda seconds: str(math.ceil(seconds))),
    "anthropic": _anthropic,
    "groq": _ratelimit({"requests": "requests_per_day", "tokens": "tokens"}, go_duration),
    "plain": lambda _limits, _unix_now_s: {},
}
