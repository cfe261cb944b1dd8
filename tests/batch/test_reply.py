"""Only the provider's verdict on a line is final; everything else is sent again."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.batch.lines import parse_line
from penstock.batch.reply import BatchReply, Standing, reply_of
from penstock.errors import Refused
from penstock.wire.endpoint import Vendor
from penstock.wire.errors import error_answer, refusal_answer
from tests.batch.files import request
from tests.proxy.sick import GOOD, WAYS

LINE = parse_line(1, json.dumps(request(1)).encode())


def told(status: int, body: Any = b"", **headers: str) -> BatchReply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return reply_of(LINE, status, said, content, None, wall_now=0.0)


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def test_what_the_endpoint_returns_is_a_result() -> None:
    reply = told(200, GOOD)
    assert reply.standing is Standing.RESULT
    assert (reply.usage.prompt_tokens, reply.usage.output_tokens) == (3, 2)


@pytest.mark.parametrize("way", [way for way in WAYS if WAYS[way].startswith(b"HTTP/1.1 2")])
def test_no_way_of_being_sick_is_a_result(way: str) -> None:
    head, _, body = WAYS[way].partition(b"\r\n\r\n")
    reply = told(int(head.split()[1]), body)
    assert reply.standing not in (Standing.RESULT, Standing.REFUSED)
    assert reply.why


@pytest.mark.parametrize("status", [500, 501, 502, 504, 507, 520, 530, 599, 408, 409, 424])
def test_a_failure_of_the_provider_is_no_verdict_on_the_line(status: int) -> None:
    assert told(status, error("it broke")).standing is Standing.BROKEN


@pytest.mark.parametrize("status", [403, 413, 421, 451])
def test_what_stands_in_front_of_the_provider_gives_no_verdict(status: int) -> None:
    assert told(status, b"<html>blocked by the firewall").standing is Standing.BROKEN


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, error("max_tokens is too large")),
        (400, error("maximum context length", code="context_length_exceeded")),
        (403, error("no access to this model")),
        (404, error("no such model", code="model_not_found")),
        (404, {"object": "error", "message": "The model `m` does not exist."}),
        (413, error("too long")),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "missing"}]}),
        (429, error("Request too large for gpt-5 on tokens per min (TPM): Limit 10, Requested 20")),
        (200, error("bad request", code="invalid_prompt")),
    ],
)
def test_the_providers_own_words_on_the_line_are_final(status: int, body: Any) -> None:
    assert told(status, body).standing is Standing.REFUSED


@pytest.mark.parametrize(
    ("reply", "wait_s"),
    [
        (told(429, error("slow down"), retry_after="450"), 450.0),
        (told(429, error("slow down"), retry_after="1800"), 1800.0),
        (told(429, error("Please retry after 26 seconds.")), 26.0),
        (told(429, [error("x", details=[{"retryDelay": "34s"}])]), 34.0),
        (told(429, error("Please try again in 1m2.5s.")), 62.5),
        (told(503, b"busy"), None),
        (told(529, error("overloaded", type="overloaded_error")), None),
    ],
)
def test_a_wait_is_waited_for_wherever_it_is_stated(
    reply: BatchReply, wait_s: float | None
) -> None:
    assert (reply.standing, reply.wait_s) == (Standing.THROTTLED, wait_s)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (told(401, error("bad key")), "the API key is refused (HTTP 401)"),
        (told(429, error("pay", code="insufficient_quota")), "the account is spent (HTTP 429)"),
        (told(402, error("pay")), "the account is spent (HTTP 402)"),
        (told(429, error("x"), retry_after="86400"), "asks to wait for 24.0 hours"),
        (told(301, b""), "does it lead to the provider's API?"),
    ],
)
def test_what_stops_every_line_ends_the_run(reply: BatchReply, says: str) -> None:
    assert reply.standing is Standing.BLOCKED
    assert says in reply.why


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (told(404, {"detail": "Not Found"}), "does the base URL lead to the provider's API?"),
        (told(404, b"<html>"), "does the base URL lead to the provider's API?"),
        (told(200, b"<!doctype html>"), "the base URL answers with a web page"),
    ],
)
def test_what_is_not_the_api_ends_the_run_unless_the_api_has_answered_too(
    reply: BatchReply, says: str
) -> None:
    assert reply.standing is Standing.ELSEWHERE
    assert says in reply.why


@pytest.mark.parametrize("vendor", [Vendor.OPENAI, Vendor.ANTHROPIC])
@pytest.mark.parametrize("code", ["unknown_class", "class_not_allowed", "tenant_not_allowed"])
def test_a_class_that_the_sidecar_does_not_give_ends_the_run(vendor: Vendor, code: str) -> None:
    answer = error_answer(vendor, 400 if code == "unknown_class" else 403, code, "no such class")
    reply = told(answer.status, answer.body)
    assert (reply.standing, reply.why) == (Standing.BLOCKED, "the sidecar says: no such class")


def refused(reason: str, retry_after_s: float | None) -> Refused:
    return Refused(
        "r-1", reason, rung="short", predicted_cost_tokens=9, severity=0.0,
        retry_after_s=retry_after_s,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "retry_after_s", "here", "at_a_sidecar"),
    [
        ("draining", 1.0, Standing.UNSENT, Standing.THROTTLED),
        ("shed", 2.0, Standing.THROTTLED, Standing.THROTTLED),
        ("rate", 450.0, Standing.THROTTLED, Standing.THROTTLED),
        ("queue_full", 1.0, Standing.THROTTLED, Standing.THROTTLED),
        ("expired", None, Standing.THROTTLED, Standing.THROTTLED),
        ("quota", None, Standing.BLOCKED, Standing.BLOCKED),
        ("fault", None, Standing.BROKEN, Standing.BROKEN),
    ],
)
def test_a_refusal_of_penstock_is_never_final(
    reason: str, retry_after_s: float | None, here: Standing, at_a_sidecar: Standing
) -> None:
    refusal = refused(reason, retry_after_s)
    answer = refusal_answer(Vendor.OPENAI, refusal)
    mine = reply_of(LINE, answer.status, answer.headers, answer.body, refusal, wall_now=0.0)
    theirs = reply_of(LINE, answer.status, answer.headers, answer.body, None, wall_now=0.0)
    assert (mine.standing, theirs.standing) == (here, at_a_sidecar)


@pytest.mark.parametrize(
    "facts",
    [
        {"reason": "rate"},
        "rate",
        {**dict.fromkeys(("id", "reason", "rung", "severity", "queued_s"), "x"),
         "predicted_cost_tokens": "x", "retry_after_s": "soon"},
        {"id": "r", "reason": "rate", "rung": "short", "severity": 0.0, "queued_s": 0.0,
         "predicted_cost_tokens": 1.0, "retry_after_s": -1e999},
    ],
)  # fmt: skip
def test_what_only_looks_like_a_refusal_of_penstock_is_the_providers(facts: Any) -> None:
    body = {"error": {"message": "no room", "penstock": facts}}
    reply = told(429, json.dumps(body).encode())
    assert (reply.standing, reply.wait_s) == (Standing.THROTTLED, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "penstock", "message", "code", "type", "choices", "usage"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.integers(200, 599),
    st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=12)),
)
def test_any_answer_has_a_standing(status: int, body: bytes, headers: dict[str, str]) -> None:
    reply = reply_of(LINE, status, headers, body, None, wall_now=0.0)
    assert reply.why.isprintable()
    assert (reply.standing is Standing.RESULT) == (not reply.why)
    assert reply.wait_s is None or 0 <= reply.wait_s < float("inf")


def test_foreign_words_are_cut_and_fit_for_a_terminal() -> None:
    why = told(500, error("\x1b[31mred\n" + "x" * 1000)).why
    assert why.isprintable()
    assert len(why) <= 400
