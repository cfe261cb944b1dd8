"""What a refusal means in every dialect: one row of docs/reference/refusals.md, one row here."""

import json
from typing import Any

import pytest

from penstock.core.events import RefusalCause
from penstock.wire.gateway import gateway_limits
from penstock.wire.limits import limits_of
from penstock.wire.refusal import BROKEN, NEVER, NEVER_HERE, RELAY, Backoff, Meaning, meaning_of
from penstock.wire.usage import usage_of_object
from penstock.wire.waits import NO_NUMBER, reset_s, retry_after_s, wait_in_error

RATE, QUOTA, OVERLOAD = RefusalCause.RATE, RefusalCause.QUOTA, RefusalCause.OVERLOAD
NOON = 1_795_435_200.0  # 2026-11-23 12:00:00 UTC


def error(message: str = "", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def google(*details: dict[str, Any], message: str = "") -> list[dict[str, Any]]:
    return [error(message, code=429, status="RESOURCE_EXHAUSTED", details=list(details))]


PER_MINUTE = {"@type": "QuotaFailure", "violations": [
    {"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]}  # fmt: skip
PER_DAY = {"@type": "QuotaFailure", "violations": [
    {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}  # fmt: skip
DELAY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "32.5s"}
TPM = "on tokens per min (TPM): Limit 30000, "
Row = tuple[int, dict[str, str], Any, Meaning]
ROWS: dict[str, Row] = {
    "OpenAI, for a moment": (
        429, {}, error(f"Rate limit reached for m {TPM}Used 29500, Requested 700. "
                       "Please try again in 1m2.5s.", code="rate_limit_exceeded", type="tokens"),
        Backoff(RATE, 62.5)),
    "OpenAI, in milliseconds": (
        429, {}, error("Please try again in 850ms."), Backoff(RATE, 0.85)),
    "OpenAI, header before body": (
        429, {"retry-after": "7"}, error("Please try again in 9s."), Backoff(RATE, 7.0)),
    "OpenAI, too large for a minute": (
        429, {}, error(f"Request too large for m {TPM}Requested 45000. The input or output tokens "
                       "must be reduced in order to run successfully.", type="tokens",
                       code="rate_limit_exceeded"), NEVER),
    "OpenAI, spent": (429, {}, error(code="insufficient_quota"), Backoff(QUOTA, None)),
    "OpenAI, overloaded": (503, {}, error(code="slow_down"), Backoff(OVERLOAD, None)),
    "Azure, deployments": (
        429, {}, error("Requests to the ChatCompletions_Create Operation have exceeded token rate "
                       "limit. Please retry after 26 seconds.", code="429"), Backoff(RATE, 26.0)),
    "Azure, v1": (
        429, {"retry-after-ms": "1500"}, error(code="RateLimitReached"), Backoff(RATE, 1.5)),
    "Azure, no room": (429, {}, error(code="NoCapacity"), Backoff(OVERLOAD, None)),
    "Anthropic, for a moment": (
        429, {"retry-after": "12"}, error("This request would exceed your organization's rate "
                                          "limit of 40,000 input tokens per minute.",
                                          type="rate_limit_error"), Backoff(RATE, 12.0)),
    "Anthropic, long context": (
        429, {}, error("Extra usage is required for long context requests.",
                       type="rate_limit_error"), NEVER),
    "Anthropic, overloaded": (529, {}, error(type="overloaded_error"), Backoff(OVERLOAD, None)),
    "Anthropic, credit": (
        400, {}, error("Your credit balance is too low", type="invalid_request_error"),
        Backoff(QUOTA, None)),
    "Anthropic, own spend limit": (
        400, {}, error("You have reached your specified API usage limits. You will regain access "
                       "on 2026-12-01"), Backoff(QUOTA, None)),
    "Anthropic, too large": (413, {}, error(type="request_too_large"), RELAY),
    "Gemini, a minute's": (429, {}, google(PER_MINUTE, DELAY), Backoff(RATE, 32.5)),
    "Gemini, a day's": (429, {}, google(PER_DAY, DELAY), Backoff(QUOTA, None)),
    "Gemini, in words": (429, {}, google(message="Please retry in 9.25s."), Backoff(RATE, 9.25)),
    "Gemini, overloaded": (
        503, {}, [error("The model is overloaded.", status="UNAVAILABLE")],
        Backoff(OVERLOAD, None)),
    "Groq, for a moment": (
        429, {"retry-after": "2"}, error(code="rate_limit_exceeded", type="tokens"),
        Backoff(RATE, 2.0)),
    "Groq, a day's": (
        429, {}, error("on tokens per day (TPD): Limit 500000, Used 499999, Requested 700. Please "
                       "try again in 11m12s."), Backoff(QUOTA, 672.0)),
    "Groq, too large": (
        413, {}, error("Request too large for model on tokens per minute (TPM): Limit 6000, "
                       "Requested 8000", code="rate_limit_exceeded"), NEVER),
    "Groq, flex": (498, {}, error(code="capacity_exceeded"), Backoff(OVERLOAD, None)),
    "Mistral, for a moment": (
        429, {}, {"message": "Requests rate limit exceeded"}, Backoff(RATE, None)),
    "Mistral, no room": (
        429, {}, {"object": "error", "message": "Service tier capacity exceeded for this model.",
                  "type": "service_tier_capacity_exceeded", "code": "3505"},
        Backoff(OVERLOAD, None)),
    "OpenRouter, for a moment": (
        429, {}, error("Rate limit exceeded", code=429,
                       metadata={"headers": {"X-RateLimit-Reset": str(int(NOON * 1000) + 4000)}}),
        Backoff(RATE, 4.0)),
    "OpenRouter, a day's": (
        429, {}, error("Rate limit exceeded: free-models-per-day.", code=429),
        Backoff(QUOTA, None)),
    "OpenRouter, credits": (402, {}, error(code=402), Backoff(QUOTA, None)),
    "DeepSeek, balance": (402, {}, error("Insufficient Balance"), Backoff(QUOTA, None)),
    "DeepSeek, overloaded": (503, {}, error("Server overloaded"), Backoff(OVERLOAD, None)),
    "Together, for a moment": (
        429, {}, error(type="dynamic_request_limited"), Backoff(RATE, None)),
    "Together, no room": (503, {}, error(type="service_unavailable"), Backoff(OVERLOAD, None)),
    "Together, credit": (429, {}, error(type="credit_limit"), Backoff(QUOTA, None)),
    "Fireworks, for a moment": (429, {}, {"error": "rate limit exceeded"}, Backoff(RATE, None)),
    "Fireworks, suspended": (
        412, {}, error("Account a is suspended, possibly due to reaching the monthly spending "
                       "limit"), Backoff(QUOTA, None)),
    "Bedrock, for a moment": (
        429, {}, {"__type": "ThrottlingException", "message": "Too many requests, please wait"},
        Backoff(RATE, None)),
    "Bedrock, throttled with a 400": (
        400, {}, {"__type": "ThrottlingException", "message": "Too many tokens"},
        Backoff(RATE, None)),
    "Bedrock, a day's": (
        429, {}, {"message": "Too many tokens per day, please wait before trying again."},
        Backoff(QUOTA, None)),
    "Bedrock, not ready": (
        429, {}, {"__type": "ModelNotReadyException"}, Backoff(OVERLOAD, None)),
    "Vertex": (429, {}, google(message="Resource exhausted. Please try again later."),
               Backoff(RATE, None)),
    "vLLM, too long": (400, {}, {"object": "error", "type": "BadRequestError", "code": 400}, RELAY),
    "vLLM, overloaded": (503, {}, "busy", Backoff(OVERLOAD, None)),
    "llama.cpp, loading": (
        503, {}, error("Loading model", code=503, type="unavailable_error"),
        Backoff(OVERLOAD, None)),
    "llama.cpp, too long": (400, {}, error(type="exceed_context_size_error"), RELAY),
    "TGI, overloaded": (
        429, {}, {"error": "Model is overloaded", "error_type": "overloaded"},
        Backoff(OVERLOAD, None)),
    "TGI, broke": (424, {}, {"error": "Request failed", "error_type": "generation"}, BROKEN),
    "TGI, too long": (422, {}, {"error": "inputs", "error_type": "validation"}, RELAY),
    "Cerebras, a minute's": (
        429, {}, {"message": "Tokens per minute limit exceeded - too many tokens processed.",
                  "type": "too_many_tokens_error", "code": "token_quota_exceeded"},
        Backoff(RATE, None)),
    "Cerebras, a day's": (
        429, {}, {"message": "Tokens per day limit exceeded - too many tokens processed.",
                  "type": "too_many_tokens_error", "code": "token_quota_exceeded"},
        Backoff(QUOTA, None)),
    "Cerebras, no room": (
        429, {}, {"type": "too_many_requests_error", "code": "queue_exceeded"},
        Backoff(OVERLOAD, None)),
    "xAI, credits": (
        429, {}, {"code": "Some resource has been exhausted",
                  "error": "Your team has used all available credits or reached its monthly "
                           "spending limit."}, Backoff(QUOTA, None)),
    "Moonshot, balance": (
        429, {}, error("Your account is suspended", type="exceeded_current_quota_error"),
        Backoff(QUOTA, None)),
    "Moonshot, no room": (
        429, {}, error("try again later", type="engine_overloaded_error"),
        Backoff(OVERLOAD, None)),
    "Zhipu, balance": (429, {}, error("余额不足", code="1113"), Backoff(QUOTA, None)),
    "Zhipu, for a moment": (429, {}, error("并发数过高", code="1302"), Backoff(RATE, None)),
    "DashScope, for a moment": (
        429, {}, error("Allocated quota exceeded", code="Throttling.AllocationQuota"),
        Backoff(RATE, None)),
    "DashScope, arrears": (400, {}, error("Access denied", code="Arrearage"), Backoff(QUOTA, None)),
    "Volcano, own limit": (429, {}, error("paused", code="SetLimitExceeded"), Backoff(QUOTA, None)),
    "Volcano, overdue": (403, {}, error(code="AccountOverdueError"), Backoff(QUOTA, None)),
    "Volcano, no room": (429, {}, error("busy", code="ServerOverloaded"), Backoff(OVERLOAD, None)),
    "SiliconFlow, balance": (
        403, {}, {"code": 30001, "message": "Sorry, your account balance is insufficient"},
        Backoff(QUOTA, None)),
    "Cloudflare, a day's": (
        429, {}, {"errors": [{"code": 4006, "message": "you have used up your daily free "
                                                       "allocation of 10,000 neurons"}]},
        Backoff(QUOTA, None)),
    "Cloudflare, no room": (
        429, {}, {"errors": [{"message": "AiError: Capacity temporarily exceeded"}]},
        Backoff(OVERLOAD, None)),
    "OpenRouter, key's limit": (
        403, {}, error("Key limit exceeded (total limit).", code=403), Backoff(QUOTA, None)),
    "Azure, a reset alone": (
        429, {"x-rate-limit-reset-tokens": "55"}, error(code="429"), Backoff(RATE, 55.0)),
    "Azure API Management, quota": (
        403, {"retry-after": "750"}, {"statusCode": 403, "message": "Out of call volume quota."},
        Backoff(QUOTA, 750.0)),
    "LiteLLM, budget": (
        400, {}, error("Budget has been exceeded!", type="budget_exceeded"),
        Backoff(QUOTA, None)),
    "LiteLLM, the provider's wait": (
        429, {"llm_provider-retry-after": "26"}, error(code="429"), Backoff(RATE, 26.0)),
    "Portkey, budget": (
        412, {}, {"status": "failure", "message": "Budget exhausted"}, Backoff(QUOTA, None)),
    "OpenAI, a project's budget": (
        429, {}, error(code="project_spend_limit_exceeded"), Backoff(QUOTA, None)),
    "Ollama, an hour's": (
        429, {}, {"error": "you've reached your hourly usage limit, please upgrade to continue"},
        Backoff(QUOTA, None)),
    "SGLang, no room": (
        429, {}, {"object": "error", "message": "The request queue is full."},
        Backoff(OVERLOAD, None)),
    "told not to try again": (429, {"x-should-retry": "false"}, error(), NEVER_HERE),
    "told not to, broken": (500, {"x-should-retry": "false"}, error(), NEVER_HERE),
    "told not to, spent": (
        429, {"x-should-retry": "false"}, error(code="insufficient_quota"), Backoff(QUOTA, None)),
    "told to try again": (409, {"x-should-retry": "true"}, error(), BROKEN),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_what_a_refusal_means(name: str) -> None:
    status, headers, body, meaning = ROWS[name]
    assert meaning_of(status, headers, json.dumps(body).encode(), wall_now=NOON) == meaning


NONSENSE = ["", ";", '"', '"' * 9999, "9" * 16_000, "1" * 16_000 + "x", "-1", "nan", "inf", "1e999",
            ";" * 9999, ",=,=" * 999, "Mon, 23 Nov 99999 12:00:00 GMT", "\ud83d",
            "Mon, 01 Jan 0001 00:00:00 +2359", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z",
            "9999999999999d", "1d" * 8000]  # fmt: skip


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_no_header_breaks_its_reader_or_says_more_than_a_month(text: str) -> None:
    for wait_s in (
        retry_after_s({"retry-after": text, "retry-after-ms": text}, wall_now=NOON),
        reset_s(text, {"date": text}, NOON),
        wait_in_error({"message": f"try again in {text}", "details": [{"retryDelay": text}]},
                      wall_now=NOON),
    ):  # fmt: skip
        assert wait_s is None or wait_s is NO_NUMBER or 0 <= wait_s <= 30 * 86_400
    headers = dict.fromkeys(("ratelimit", "ratelimit-policy", "ratelimit-limit"), text)
    assert all(value is NO_NUMBER for value in gateway_limits(headers).values())
    limits_of("u", dict.fromkeys(("x-ratelimit-limit-requests", "x-ratelimit-reset-requests",
                                  "ratelimit", "date"), text), wall_now=NOON)  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"[1]", b'{"error":[]}', b'{"error":null}', b"\xff", b"[" * 99_999,
     b'{"error":{"message":{},"code":[],"details":[1,{"violations":[2]}],"metadata":[]}}',
     b'{"error":{"details":{},"metadata":{"headers":{"X-RateLimit-Reset":[[]]}}}}'],
)  # fmt: skip
def test_a_body_that_says_nothing_leaves_the_status_to_speak(body: bytes) -> None:
    assert meaning_of(429, {}, body, wall_now=NOON) == Backoff(RATE, None)


def test_a_count_that_cannot_be_is_unknown() -> None:
    from penstock.wire.endpoint import Kind

    reply = {"usage": {"prompt_tokens": 1e300, "completion_tokens": 99999999999999}}
    assert usage_of_object(Kind.CHAT, reply).source == "unknown"
