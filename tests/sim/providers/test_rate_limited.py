"""`rate_limited`: two buckets, a quota, and each vendor's way to say so."""

import pytest

from penstock.sim.providers.base import Job, Provider
from penstock.sim.providers.rate_limited import go_duration
from penstock.sim.providers.registry import build_provider

INNER = {"model": "slots", "slots": 100, "tokens_per_s": 1000.0, "ttft_s": 0.0}


def limited(**params: object) -> Provider:
    return build_provider({"model": "rate_limited", "inner": INNER, **params}, seed=0)


def test_requests_beyond_the_bucket_get_429_with_the_time_to_wait() -> None:
    provider = limited(rpm=60, burst_s=2.0)

    answers = [provider.submit(Job(n, 1), now=0.0) for n in range(3)]

    assert answers[:2] == [None, None]
    refusal = answers[2]
    assert refusal is not None
    assert (refusal.status, refusal.kind) == (429, "rate")
    assert refusal.retry_after_s == pytest.approx(1.0)
    assert refusal.headers["retry-after"] == "1"
    assert refusal.headers["retry-after-ms"] == "1000"


def test_who_waits_exactly_as_long_as_told_is_let_in() -> None:
    provider = limited(rpm=7, burst_s=9.0)
    now = 0.0
    for n in range(50):
        refusal = provider.submit(Job(n, 1), now=now)
        if refusal is not None:
            assert refusal.retry_after_s is not None
            now += refusal.retry_after_s
            assert provider.submit(Job(n, 1), now=now) is None


def test_tokens_are_charged_prompt_and_reply_together() -> None:
    provider = limited(tpm=600)

    assert provider.submit(Job(1, 300, prompt_tokens=200), now=0.0) is None
    refusal = provider.submit(Job(2, 100, prompt_tokens=100), now=0.0)

    assert refusal is not None
    assert refusal.retry_after_s == pytest.approx(10.0)
    assert provider.submit(Job(3, 50, prompt_tokens=50), now=0.0) is None


def test_a_request_dearer_than_a_full_bucket_passes_when_it_is_full() -> None:
    provider = limited(tpm=600)

    assert provider.submit(Job(1, 900), now=0.0) is None
    refusal = provider.submit(Job(2, 1), now=30.0)

    assert refusal is not None
    assert refusal.retry_after_s == pytest.approx(0.1)


def test_input_and_output_have_limits_of_their_own() -> None:
    provider = limited(input_tpm=100, output_tpm=10_000, dialect="anthropic")

    assert provider.submit(Job(1, 5, prompt_tokens=100), now=0.0) is None
    assert provider.submit(Job(2, 5, prompt_tokens=1), now=0.0) is not None
    assert provider.submit(Job(3, 5, prompt_tokens=0), now=0.0) is None


def test_a_spent_quota_is_refused_as_such_until_its_reset() -> None:
    provider = limited(quota_tokens=100, quota_reset_s=3600.0)
    assert provider.submit(Job(1, 100), now=10.0) is None

    refusal = provider.submit(Job(2, 1), now=600.0)

    assert refusal is not None
    assert (refusal.kind, refusal.retry_after_s) == ("quota", 3000.0)
    assert provider.submit(Job(3, 1), now=3600.0) is None


def test_limits_may_change_in_mid_run() -> None:
    provider = limited(rpm=60, burst_s=1.0, changes=[{"at_s": 100.0, "rpm": 6000}])
    assert provider.submit(Job(1, 1), now=99.0) is None
    assert provider.submit(Job(2, 1), now=99.0) is not None

    assert all(provider.submit(Job(n, 1), now=101.0) is None for n in range(3, 90))


HEADERS = {
    "openai": {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5000",
        "x-ratelimit-reset-tokens": "10s",
    },
    "azure": {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5000",
        "x-ratelimit-reset-tokens": "10",
    },
    "anthropic": {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "59",
        "anthropic-ratelimit-requests-reset": "1970-01-01T00:00:01Z",
        "anthropic-ratelimit-tokens-limit": "6000",
        "anthropic-ratelimit-tokens-remaining": "5000",
        "anthropic-ratelimit-tokens-reset": "1970-01-01T00:00:10Z",
    },
    "groq": {
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5000",
        "x-ratelimit-reset-tokens": "10s",
    },
    "plain": {},
}


@pytest.mark.parametrize("dialect", sorted(HEADERS))
def test_each_dialect_states_the_limits_its_own_way(dialect: str) -> None:
    provider = limited(rpm=60, tpm=6000, dialect=dialect)
    provider.submit(Job(1, 900, prompt_tokens=100), now=0.0)

    assert provider.headers(now=0.0) == HEADERS[dialect]


def test_groqs_request_headers_speak_of_a_day() -> None:
    provider = limited(rpd=1440, dialect="groq")
    provider.submit(Job(1, 1), now=0.0)

    headers = provider.headers(now=0.0)

    assert headers["x-ratelimit-limit-requests"] == "1440"
    assert headers["x-ratelimit-reset-requests"] == "1m0s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.02, "20ms"), (7.66, "7.66s"), (59.9996, "1m0s"), (360.0, "6m0s"), (7380.5, "2h3m0.5s")],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


def test_everything_else_is_the_inner_providers() -> None:
    provider = limited(rpm=60)
    provider.submit(Job(1, 1000), now=0.0)
    provider.submit(Job(2, 1000), now=0.0)
    provider.advance(now=0.0)

    provider.cancel(1, now=0.5)

    assert provider.tokens_done(2, now=0.5) == 500
    assert provider.load().active == 1
    assert provider.next_event_at() == 1.0
