"""Whole answers."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response


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
