"""Answers as the vendors write them: whole ones, events of a stream, errors."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from penstock.wire.errors import ANTHROPIC_TYPES


def json_response(
    document: Mapping[str, Any], headers: Mapping[str, str] | None = None, *, status: int = 200
) -> Response:
    """Return a JSON answer."""
    return response(orjson.dumps(document), headers, status=status)


def response(
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    status: int = 200,
    content_type: str = "application/json",
) -> Response:
    """Return an answer whose content type is stated as it stands."""
    return Response(body, status, {"content-type": content_type, **(headers or {})})


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


SSE_DONE = b"data: [DONE]\n\n"


def sse_data(payload: dict[str, Any]) -> bytes:
    """Return an event with data only (OpenAI's chat and completions)."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def sse_named(payload: dict[str, Any]) -> bytes:
    """Return an event named after its payload's type (OpenAI's responses, Anthropic)."""
    name: str = payload["type"]
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"
