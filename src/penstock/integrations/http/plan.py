"""What a transport does with a request: schedule it, and as what."""

import logging
import math
from dataclasses import dataclass
from typing import Any

from penstock.calls.endpoint import Endpoint, endpoint_like, model_in
from penstock.calls.factory import spec_of_call
from penstock.calls.facts import Facts, facts_of
from penstock.calls.form import FormError, form_of, is_form
from penstock.calls.hints import IGNORED_HEADER, MARK, hints_of, ignored_of, told_of
from penstock.calls.spec import RequestSpec
from penstock.integrations.context import CURRENT
from penstock.integrations.program import Outlet, Penstock
from penstock.wire import jsonio
from penstock.wire.encoding import PLAIN_MAX_BYTES, EncodingError, is_plain, unpacked

logger = logging.getLogger("penstock.calls")
_MARK_LENGTH = len(MARK)
_ENCODING = b"content-encoding"
_ENCODING_LENGTH = len(_ENCODING)
_TOLD_MOST = 100
_GUESSED = "the call is sent as it is, a default estimate stands in, and the provider judges"
_told: set[str] = set()


@dataclass(slots=True)  # not frozen: one is made a call, and freezing is most of the cost
class Plan:
    """How one HTTP request is scheduled.

    Attributes:
        endpoint: what it asks for.
        spec: as the gate takes it.
        outlet: the way to its provider.
        deadline_s: the caller's explicit deadline; inf if there is none.
        said: headers for its answer.

    """

    endpoint: Endpoint
    spec: RequestSpec
    outlet: Outlet
    deadline_s: float
    said: dict[str, str]


def endpoint_for(request: Any) -> Endpoint | None:
    """Return the endpoint of a request that is to be scheduled; None to let it pass."""
    if request.method != "POST":
        return None
    endpoint = endpoint_like(request.url.path)
    return endpoint if endpoint is not None and endpoint.scheduled else None


def plan_of(
    penstock: Penstock, request: Any, endpoint: Endpoint, content: bytes, upstream: str | None
) -> Plan:
    """Return the plan for a request.

    Our headers are taken off.

    Raises:
        HintError: a hint that cannot be.

    """
    if upstream is None:
        url = request.url
        host, port = url.host, url.port
        upstream = host if port is None else f"{host}:{port}"
    outlet = penstock.outlet(upstream)
    unread: tuple[dict[str, Any] | None, Facts] = (None, Facts())
    body, facts = outlet.driver.guard.run(
        "request", lambda: _read(endpoint, request, content), unread
    )
    for problem in facts.problems:
        _tell(f"{endpoint.path}: {problem}", _GUESSED)
    ours = take_ours(request.headers)
    hints = hints_of(ours).over(CURRENT.get()) if ours else CURRENT.get()
    spec = spec_of_call(endpoint, body, facts, hints)
    spec.account = outlet.accounts.of(request.headers.raw)
    deadline_s = math.inf if hints.deadline_s is None else hints.deadline_s
    return Plan(endpoint, spec, outlet, deadline_s, _said(ours))


def _read(endpoint: Endpoint, request: Any, content: bytes) -> tuple[dict[str, Any] | None, Facts]:
    body = _body(request.headers, content)
    if body is None:
        return None, Facts(problems=("the body must be a JSON object or a form",))
    if not body.get("model") and (model := model_in(request.url.path)):
        body["model"] = model  # for the books: what is sent is the content
    return body, facts_of(endpoint, body)


def _body(headers: Any, content: bytes) -> dict[str, Any] | None:
    """Return the parsed body; None if it is neither JSON object nor form: the provider says so."""
    for name, value in headers.raw:  # one pass; the library's look-up costs 2 us
        if len(name) == _ENCODING_LENGTH and name.lower() == _ENCODING:
            try:
                encoding = value.decode("latin-1")
                content = unpacked(content, encoding, at_most_bytes=PLAIN_MAX_BYTES)
            except EncodingError as error:
                if error.too_large or not is_plain(content):
                    return None
    parsed = jsonio.lenient_object(content)
    if parsed is None and is_form(kind := headers.get("content-type", "")):
        try:
            return form_of(kind, content)
        except FormError:
            return None
    return parsed


def _tell(text: str, consequence: str) -> None:
    """Log what is not understood, once."""
    if text not in _told and len(_told) < _TOLD_MOST:
        _told.add(text)
        logger.warning("%s; %s", text, consequence)


def _said(ours: list[tuple[bytes, bytes]]) -> dict[str, str]:
    ignored = ignored_of(ours)
    if not ignored:
        return {}
    told = told_of(ignored)
    _tell(told, "no such hint is known: it was ignored, as the answer's header says")
    return {IGNORED_HEADER.decode(): told}


def take_ours(headers: Any) -> list[tuple[bytes, bytes]]:
    """Take the headers `x-penstock-*` off, which are no business of a provider; return them."""
    # One look at the names for all, most calls having none: a look-up costs 0.6 us.
    ours = [(k.lower(), v) for k, v in headers.raw if k[:_MARK_LENGTH].lower() == MARK]
    for name in {name.decode("latin-1") for name, _ in ours}:
        del headers[name]
    return ours
