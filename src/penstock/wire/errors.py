"""Our refusals, in the shape of the vendor whose client is asking."""

import math
from dataclasses import dataclass
from typing import Any

from penstock.errors import Refused
from penstock.wire import jsonio
from penstock.wire.endpoint import Vendor

MAX_RETRY_AFTER_S = 60.0
"""The longest wait that we ever tell a client (openai's SDK gives up above 120 s, anthropic's
sleeps however long it is told; so a provider's days-long value is never passed on)."""

_STATUS = {
    "shed": 429,
    "queue_full": 429,
    "quota": 429,
    "rate": 429,
    "draining": 503,
    "expired": 504,
    "hopeless": 504,
    "upstream": 503,
    "no_upstream": 503,
    "too_large": 413,
    "fault": 500,
    "blocked_loop": 503,
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "server_error",
    504: "server_error",
}


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """An HTTP answer of our own."""

    status: int
    headers: dict[str, str]
    body: bytes


def refusal_answer(
    vendor: Vendor, refused: Refused, *, deadline_left_s: float = math.inf
) -> OwnAnswer:
    """Return the answer to a refused request.

    The client is told to try again by itself only if that can still meet its deadline, and
    never sooner than the scheduler thinks useful: an SDK's blind retries are what turns a full
    queue into a storm.

    Args:
        vendor: whose error shape to use.
        refused: the scheduler's refusal.
        deadline_left_s: what is left until the caller's deadline; inf if there is none.

    """
    status = _STATUS.get(refused.reason, 503)
    facts = refusal_facts(refused)
    headers = {
        "x-penstock-id": refused.id,
        "x-penstock-decision": f"refused:{refused.reason}",
        "x-penstock-queue-ms": f"{refused.queued_s * 1000:.0f}",
    }
    again = _may_try_again(refused, deadline_left_s)
    headers["x-should-retry"] = "true" if again else "false"
    if refused.retry_after_s is not None:
        wait_s = min(max(refused.retry_after_s, 0.001), MAX_RETRY_AFTER_S)
        headers["retry-after"] = str(math.ceil(wait_s))
        headers["retry-after-ms"] = str(math.ceil(wait_s * 1000))
    return error_answer(
        vendor, status, f"penstock_{refused.reason}", str(refused), headers=headers, facts=facts
    )


def refusal_facts(refused: Refused) -> dict[str, Any]:
    """Return the refusal's fields, as they stand in the error's `penstock` object."""
    said = {"provider_said": refused.provider_said} if refused.provider_said else {}
    return {
        "id": refused.id,
        "reason": refused.reason,
        "rung": refused.rung,
        "predicted_cost_tokens": round(refused.predicted_cost_tokens, 1),
        "severity": round(refused.severity, 4),
        "retry_after_s": refused.retry_after_s,
        "queued_s": round(refused.queued_s, 4),
        **said,
    }


def refused_of_facts(facts: dict[str, Any]) -> Refused:
    """Return the refusal that an error's `penstock` object describes.

    Raises:
        KeyError: a field is missing.

    """
    return Refused(
        facts["id"],
        facts["reason"],
        rung=facts["rung"],
        predicted_cost_tokens=facts["predicted_cost_tokens"],
        severity=facts["severity"],
        retry_after_s=facts["retry_after_s"],
        queued_s=facts["queued_s"],
        provider_said=facts.get("provider_said", ""),
    )


def error_answer(
    vendor: Vendor,
    status: int,
    code: str,
    message: str,
    *,
    headers: dict[str, str] | None = None,
    facts: dict[str, Any] | None = None,
) -> OwnAnswer:
    """Return any error of ours, shaped so that the vendor's SDK raises its usual exception.

    Args:
        vendor: whose shape to use.
        status: HTTP status.
        code: a stable word for programs.
        message: a sentence for people; no prompt and no key in it.
        headers: to send along.
        facts: the `penstock` object inside the error.

    """
    if vendor is Vendor.ANTHROPIC:
        error: dict[str, Any] = {
            "type": ANTHROPIC_TYPES.get(status, "api_error"),
            "message": message,
            "details": {"error_code": code},
        }
        body: dict[str, Any] = {"type": "error", "error": error}
        if facts is not None:
            body["request_id"] = facts["id"]
    else:
        error = {
            "message": message,
            "type": _OPENAI_TYPES.get(status, "invalid_request_error"),
            "param": None,
            "code": code,
        }
        body = {"error": error}
    if facts is not None:
        error["penstock"] = facts
    return OwnAnswer(
        status, {"content-type": "application/json", **(headers or {})}, jsonio.dumps(body)
    )


_NO_USE = ("expired", "quota")
"""Reasons that an SDK's own retry a moment later does not change."""


def _may_try_again(refused: Refused, deadline_left_s: float) -> bool:
    wait_s = refused.retry_after_s
    if wait_s is None or refused.reason in _NO_USE:
        return False
    return wait_s <= MAX_RETRY_AFTER_S and wait_s < deadline_left_s
