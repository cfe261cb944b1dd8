"""The four kinds of refusal are told apart in every dialect."""

from dataclasses import fields

import pytest

from penstock.core.events import LimitsSeen, RefusalCause
from penstock.wire.limits import limits_of
from penstock.wire.refusal import (
    BROKEN,
    RELAY,
    Backoff,
    Meaning,
    meaning_of,
    meaning_of_error,
)
from penstock.wire.waits import NO_NUMBER, retry_after_s

RATE, QUOTA, OVERLOAD = RefusalCause.RATE, RefusalCause.QUOTA, RefusalCause.OVERLOAD
NOON = 1_795_435_200.0  # 2026-11-23 12:00:00 UTC
HOUR_AHEAD = {"date": "Mon, 23 Nov 2026 13:00:00 GMT"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "meaning"),
    [
        (200, {}, b"", RELAY),
        (404, {}, b'{"error":{"message":"no such model"}}', RELAY),
        (400, {}, b'{"error":{"message":"bad"}}', RELAY),
        (429, {"retry-after": "7"}, b"", Backoff(RATE, 7.0)),
        (429, {}, b"<html>slow down</html>", Backoff(RATE, None)),
        (429, {"retry-after": "1"}, b'{"error":{"code":"insufficient_quota"}}',
         Backoff(QUOTA, 1.0)),
        (429, {}, b'{"error":{"type":"insufficient_quota","code":null}}', Backoff(QUOTA, None)),
        (429, {"retry-after": "259200"}, b'{"error":{"type":"rate_limit_error"}}',
         Backoff(QUOTA, 259_200.0)),
        (429, {}, b'{"type":"error","error":{"type":"overloaded_error"}}',
         Backoff(OVERLOAD, None)),
        (402, {}, b"", Backoff(QUOTA, None)),
        (400, {}, (b'{"error":{"type":"invalid_request_error",'
                  b'"message":"Your credit balance is too low to access the API."}}'),
         Backoff(QUOTA, None)),
        (403, {}, b'{"error":{"type":"permission_error"}}', RELAY),
        (503, {"retry-after-ms": "250"}, b"", Backoff(OVERLOAD, 0.25)),
        (529, {}, b'{"error":{"type":"overloaded_error"}}', Backoff(OVERLOAD, None)),
        (500, {}, b"", BROKEN),
        (502, {}, b"", BROKEN),
        (504, {}, b"", BROKEN),
        (408, {}, b"", BROKEN),
        (522, {}, b"", BROKEN),
        (501, {}, b"", BROKEN),
        (530, {}, b"", BROKEN),
        (599, {}, b"", BROKEN),
    ],
)  # fmt: skip
def test_what_an_answer_means(
    status: int, headers: dict[str, str], body: bytes, meaning: Meaning
) -> None:
    assert meaning_of(status, headers, body, wall_now=NOON) == meaning


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, Backoff(OVERLOAD, None)),
        ({"type": "server_error", "code": 503}, Backoff(OVERLOAD, None)),
        ({"type": "rate_limit_error"}, Backoff(RATE, None)),
        ({"code": "rate_limit_exceeded", "message": "slow down"}, Backoff(RATE, None)),
        ({"code": "429"}, Backoff(RATE, None)),
        ({"type": "insufficient_quota", "code": None}, Backoff(QUOTA, None)),
        ({"type": "billing_error"}, Backoff(QUOTA, None)),
        ({"type": "api_error"}, BROKEN),
        ({"code": 500}, BROKEN),
        ({}, BROKEN),
        ({"type": "BadRequestError", "code": 400}, RELAY),
        ({"type": "invalid_request_error"}, RELAY),
        ({"code": True, "type": ["x"]}, BROKEN),
    ],
)
def test_what_an_error_inside_a_stream_means(error: dict[str, object], meaning: Meaning) -> None:
    assert meaning_of_error(error) == meaning


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "9", "retry-after-ms": "100"}, 0.1),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Mon, 23 Nov 2026 13:00:30 GMT"} | HOUR_AHEAD, 30.0),
        ({"retry-after": "2026-11-23T13:00:30Z"} | HOUR_AHEAD, 30.0),
        ({"x-ms-retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "1m2s"}, 62.0),
        ({"retry-after": "2026-11-23T12:00:30Z"}, 30.0),
        ({"retry-after": "2026-11-23"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_how_long_the_provider_wants_us_to_wait(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert retry_after_s(headers, wall_now=NOON) == wait_s


def test_openai_limits() -> None:
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert limits_of("a", headers, wall_now=NOON) == LimitsSeen(
        "a", 60, 59, 1.0, 150_000, 149_984, 360.0
    )


def test_azure_limits_come_in_plain_seconds() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-requests": "10",
    }
    assert limits_of("a", headers, wall_now=NOON) == LimitsSeen(
        "a", remaining_requests=9, reset_requests_s=10.0, remaining_tokens=900
    )


def test_groqs_requests_count_a_day_and_matter_only_when_they_are_spent() -> None:
    headers = {
        "x-groq-region": "dls",
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-reset-requests": "2m59.56s",
        "x-ratelimit-limit-tokens": "18000",
        "x-ratelimit-remaining-tokens": "17997",
        "x-ratelimit-reset-tokens": "7.66s",
    }
    paced = limits_of("a", headers, wall_now=NOON)
    assert paced == LimitsSeen(
        "a", limit_tokens=18_000, remaining_tokens=17_997, reset_tokens_s=7.66
    )
    spent = limits_of("a", headers | {"x-ratelimit-remaining-requests": "0"}, wall_now=NOON)
    assert spent is not None
    assert (spent.limit_requests, spent.remaining_requests) == (None, 0)
    assert spent.reset_requests_s == pytest.approx(179.56)


def test_anthropics_resets_are_points_in_time_by_its_own_clock() -> None:
    headers = {
        "date": "Mon, 23 Nov 2026 12:00:00 GMT",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-23T12:00:02Z",
        "anthropic-ratelimit-input-tokens-limit": "30000",
        "anthropic-ratelimit-input-tokens-remaining": "29000",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-23T12:00:05Z",
        "anthropic-ratelimit-output-tokens-limit": "8000",
    }
    assert limits_of("a", headers, wall_now=NOON + 3600) == LimitsSeen(
        "a",
        limit_requests=50,
        remaining_requests=49,
        reset_requests_s=2.0,
        limit_input_tokens=30_000,
        remaining_input_tokens=29_000,
        reset_input_tokens_s=5.0,
        limit_output_tokens=8_000,
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
    ],
)
def test_headers_that_say_nothing_are_no_limits(headers: dict[str, str]) -> None:
    assert limits_of("a", headers, wall_now=NOON) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-limit-requests": "many", "x-ratelimit-reset-requests": "soon"},
        {"x-ratelimit-limit-requests": "-1"},
        {"x-ratelimit-limit-requests": "nan"},
        {"anthropic-ratelimit-requests-reset": "2026-11-23T12:00:00"},
    ],
)
def test_headers_whose_numbers_are_none_tell_the_gate_of_no_number(headers: dict[str, str]) -> None:
    found = limits_of("a", headers, wall_now=NOON)
    assert found is not None
    stated = [getattr(found, field.name) for field in fields(found)]
    assert [value for value in stated if value not in (None, "a", "")] == [NO_NUMBER] * len(headers)
