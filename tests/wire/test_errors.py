"""A refusal looks like the vendor's own error and says what the client may do."""

import json

import pytest

from penstock.errors import Refused
from penstock.wire.endpoint import Vendor
from penstock.wire.errors import (
    error_answer,
    refusal_answer,
    refusal_facts,
    refused_of_facts,
)


def refused(reason: str = "shed", retry_after_s: float | None = 2.5) -> Refused:
    return Refused(
        "run-7",
        reason,
        rung="xlong",
        predicted_cost_tokens=2000.0,
        severity=0.8,
        retry_after_s=retry_after_s,
        queued_s=0.25,
    )


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("shed", 429),
        ("queue_full", 429),
        ("quota", 429),
        ("rate", 429),
        ("draining", 503),
        ("expired", 504),
        ("hopeless", 504),
        ("upstream", 503),
        ("no_upstream", 503),
    ],
)
def test_each_reason_has_its_status(reason: str, status: int) -> None:
    answer = refusal_answer(Vendor.OPENAI, refused(reason))
    assert answer.status == status
    assert json.loads(answer.body)["error"]["code"] == f"penstock_{reason}"


def test_openais_shape() -> None:
    answer = refusal_answer(Vendor.OPENAI, refused())
    error = json.loads(answer.body)["error"]
    assert (error["type"], error["param"]) == ("rate_limit_error", None)
    assert "rung xlong" in error["message"]
    assert error["penstock"]["predicted_cost_tokens"] == 2000.0
    assert answer.headers["x-penstock-id"] == "run-7"


def test_anthropics_shape() -> None:
    body = json.loads(refusal_answer(Vendor.ANTHROPIC, refused("draining")).body)
    assert body["type"] == "error"
    assert body["error"]["type"] == "overloaded_error"
    assert body["request_id"] == "run-7"
    assert body["error"]["penstock"]["reason"] == "draining"


def test_the_wait_is_told_in_both_ways_and_the_client_may_try_again() -> None:
    headers = refusal_answer(Vendor.OPENAI, refused()).headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("3", "2500")
    assert headers["x-should-retry"] == "true"


@pytest.mark.parametrize(
    ("reason", "retry_after_s", "deadline_left_s"),
    [
        ("shed", 2.5, 2.0),  # too late for the deadline
        ("shed", None, 100.0),  # never
        ("upstream", 259_200.0, float("inf")),  # in days
        ("expired", 1.0, 100.0),
    ],
)
def test_a_try_that_cannot_help_is_not_asked_for(
    reason: str, retry_after_s: float | None, deadline_left_s: float
) -> None:
    refusal = refused(reason, retry_after_s)
    answer = refusal_answer(Vendor.OPENAI, refusal, deadline_left_s=deadline_left_s)
    assert answer.headers["x-should-retry"] == "false"


def test_a_wait_of_days_is_never_passed_on() -> None:
    headers = refusal_answer(Vendor.ANTHROPIC, refused("upstream", 259_200.0)).headers
    assert headers["retry-after"] == "60"


def test_a_refusal_survives_the_wire() -> None:
    facts = json.loads(refusal_answer(Vendor.OPENAI, refused()).body)["error"]["penstock"]
    assert refusal_facts(refused_of_facts(facts)) == refusal_facts(refused())


def test_other_errors_take_the_vendors_shape_too() -> None:
    answer = error_answer(Vendor.ANTHROPIC, 413, "body_too_large", "the body has 11 MB")
    assert json.loads(answer.body)["error"]["type"] == "request_too_large"
    answer = error_answer(Vendor.OPENAI, 404, "unknown_path", "no such path")
    assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"
