"""`rate_limited`: any provider behind requests- and tokens-per-minute buckets.

Each vendor states its limits and its refusals in response headers of its own.

Sources:
    OpenAI, "Rate limits" guide; Azure OpenAI, "Quotas and limits"; Anthropic, "Rate limits";
    Groq, "Rate limits". As documented in November 2026.

"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

from penstock.schema.types import Table
from penstock.sim.params import not_negative, positive
from penstock.sim.providers.base import Job, Limit, Provider, ProviderRefusal, Wrapper
from penstock.sim.providers.changes import Change

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


LIMITS = ("rpm", "rpd", "tpm", "input_tpm", "output_tpm", "quota_tokens")


class RateLimitedParams(Table):
    """Limits that the provider states and enforces; a limit left out does not hold.

    Attributes:
        rpm: requests a minute. rpd: requests a day (Groq's headers state this one).
        tpm: tokens a minute, prompt and reply together.
        input_tpm, output_tpm: the two apart, as Anthropic has them.
        burst_s: how many seconds' worth of its limit a full bucket holds.
        dialect: whose headers; `plain` states nothing but Retry-After.
        quota_tokens: tokens until the account is spent; then 429 "quota exhausted" until
            quota_reset_s after the start, and again every quota_reset_s.
        unix_start_s: wall-clock time of driver second 0, for headers that give a date.
        silent: a refusal is a bare 429: no header says that there are limits, nor when to come
            back.

    """

    rpm: float | None = positive(None, low=1e-3, high=1e12)
    rpd: float | None = positive(None, low=1e-3, high=1e12)
    tpm: float | None = positive(None, low=1e-3, high=1e12)
    input_tpm: float | None = positive(None, low=1e-3, high=1e12)
    output_tpm: float | None = positive(None, low=1e-3, high=1e12)
    burst_s: float = positive(60.0, low=1e-3)
    dialect: Literal["openai", "azure", "anthropic", "groq", "plain"] = "openai"
    quota_tokens: float | None = positive(None, low=1e-3, high=1e12)
    quota_reset_s: float = positive(86_400.0, low=1e-3)
    unix_start_s: float = not_negative(0.0, high=1e12)
    silent: bool = False

    def limits_anything(self) -> bool:
        """Return True if at least one limit is stated."""
        return any(getattr(self, name) is not None for name in LIMITS)


class _Bucket:
    """A token bucket that starts full.

    A request dearer than a full bucket passes when the bucket is full and leaves a debt, as it
    could never pass otherwise.
    """

    def __init__(self, limit: float, period_s: float, hold_s: float) -> None:
        self.limit = limit
        self._per_s = limit / period_s
        self._full = max(1.0, self._per_s * hold_s)
        self._level = self._full
        self._at = 0.0

    def wait_s(self, cost: float, now: float) -> float:
        """Return how long until this cost may pass; 0 if at once."""
        self._refill(now)
        missing = min(cost, self._full) - self._level
        # Rounding in the refill must not refuse a client that waited exactly as long as told.
        return missing / self._per_s if missing > 1e-6 else 0.0

    def take(self, cost: float) -> None:
        """Charge the cost, after `wait_s` allowed it at the same instant."""
        self._level -= cost

    def state(self, now: float) -> Limit:
        """Return what a header would say now."""
        self._refill(now)
        reset_s = (self._full - self._level) / self._per_s
        return Limit(self.limit, max(0.0, self._level), reset_s)

    def _refill(self, now: float) -> None:
        self._level = min(self._full, self._level + (now - self._at) * self._per_s)
        self._at = now


class RateLimitedServer(Wrapper):
    """Refuses at the door what the buckets do not allow; the inner provider sees the rest."""

    def __init__(
        self,
        params: RateLimitedParams,
        inner: Provider,
        changes: tuple[Change[RateLimitedParams], ...] = (),
    ) -> None:
        super().__init__(inner)
        self._changes = list(changes)
        self._spent_tokens = 0.0
        self._quota_period = 0
        self._use(params)

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Refuse the job with 429, or charge it and pass it on."""
        self._catch_up(now)
        refusal = self._quota_refusal(now)
        if refusal is not None:
            return refusal
        costs = _costs(job)
        wait_s = max((b.wait_s(costs[n], now) for n, b in self._buckets.items()), default=0.0)
        if wait_s > 0:
            return self._refusal(wait_s, "rate", now)
        refusal = self._inner.submit(job, now=now)
        if refusal is None:
            for name, bucket in self._buckets.items():
                bucket.take(costs[name])
            self._spent_tokens += costs["tokens"]
        return refusal

    def headers(self, *, now: float) -> dict[str, str]:
        """Return the limits as this dialect states them."""
        unix_now_s = self._params.unix_start_s + now
        return limit_headers(self._params.dialect, self.limits(now=now), unix_now_s=unix_now_s)

    def limits(self, *, now: float) -> Mapping[str, Limit]:
        """Return the limits as they stand; none where the dialect states none."""
        self._catch_up(now)
        if self._params.silent or self._params.dialect == "plain":
            return {}
        return {name: bucket.state(now) for name, bucket in self._buckets.items()}

    def _use(self, params: RateLimitedParams) -> None:
        self._params = params
        per_minute = {
            "requests": params.rpm,
            "tokens": params.tpm,
            "input_tokens": params.input_tpm,
            "output_tokens": params.output_tpm,
        }
        self._buckets = {
            name: _Bucket(limit, 60.0, params.burst_s)
            for name, limit in per_minute.items()
            if limit is not None
        }
        if params.rpd is not None:
            self._buckets["requests_per_day"] = _Bucket(params.rpd, 86_400.0, 86_400.0)

    def _catch_up(self, now: float) -> None:
        while self._changes and self._changes[0].at_s <= now:
            self._use(self._changes.pop(0).params)
            for bucket in self._buckets.values():
                bucket.state(now)

    def _quota_refusal(self, now: float) -> ProviderRefusal | None:
        if self._params.quota_tokens is None:
            return None
        period = math.floor(now / self._params.quota_reset_s)
        if period > self._quota_period:
            self._quota_period, self._spent_tokens = period, 0.0
        if self._spent_tokens < self._params.quota_tokens:
            return None
        return self._refusal((period + 1) * self._params.quota_reset_s - now, "quota", now)

    def _refusal(self, wait_s: float, kind: str, now: float) -> ProviderRefusal:
        if self._params.silent:
            return ProviderRefusal(429, kind=kind)
        headers = self.headers(now=now) | retry_headers(self._params.dialect, wait_s)
        return ProviderRefusal(429, wait_s, headers, kind)


def _costs(job: Job) -> dict[str, float]:
    """What a job is charged; its true reply is, as the vendors settle it in the end."""
    return {
        "requests": 1.0,
        "requests_per_day": 1.0,
        "tokens": float(job.prompt_tokens + job.output_tokens),
        "input_tokens": float(job.prompt_tokens),
        "output_tokens": float(job.output_tokens),
    }
