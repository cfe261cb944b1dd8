"""Errors in the vendors' shapes."""

from typing import Any

from penstock.wire.errors import ANTHROPIC_TYPES

_OPENAI: dict[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_supported"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("requests", "rate_limit_exceeded"),
}
_WORDS = {
    "rate": "Rate limit reached. Please try again later.",
    "quota": "You exceeded your current quota, please check your plan and billing details.",
    "overload": "The server is overloaded. Please try again later.",
    "error": "The server had an error while processing your request.",
}


class ClientError(Exception):
    """A mistake of the caller's, to be answered in the vendor's words."""

    def __init__(self, status: int, message: str, *, allow: str = "", **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"allow": allow} if allow else {}
        self.more = more


def error_body(
    vendor: str,
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    request_id: str = "",
) -> dict[str, Any]:
    """Return the error document that this vendor sends with this status."""
    if vendor == "anthropic":
        error = {"type": ANTHROPIC_TYPES.get(status, "api_error"), "message": message}
        return {"type": "error", "error": error, "request_id": request_id}
    kind, usual_code = _OPENAI.get(status, ("server_error", None))
    code = code or usual_code
    if code == "insufficient_quota":
        kind = "insufficient_quota"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refusal_body(vendor: str, status: int, kind: str, *, request_id: str = "") -> dict[str, Any]:
    """Return the document for a refusal of this kind (rate, quota, overload, error)."""
    code = "insufficient_quota" if kind == "quota" else None
    return error_body(vendor, status, _WORDS[kind], code=code, request_id=request_id)
