"""What a transport does with a request: schedule it, and as what."""

import math
from dataclasses import dataclass
from typing import Any

from penstock.calls.call import HINT_HEADERS, Call, call_of, hints_of
from penstock.integrations.context import CURRENT, Asked
from penstock.integrations.program import Outlet, Penstock
from penstock.runtime.spec import RequestSpec
from penstock.wire import jsonio
from penstock.wire.endpoint import Endpoint, endpoint_like

_MARK = b"x-penstock-"
_MARK_LENGTH = len(_MARK)


@dataclass(slots=True)  # not frozen: one is made a call, and freezing is most of the cost
class Plan:
    """How one HTTP request is scheduled.

    Attributes:
        endpoint: what it asks for.
        call: the facts of its body.
        spec: as the gate takes it.
        outlet: the way to its provider.
        deadline_s: the caller's explicit deadline; inf if there is none.

    """

    endpoint: Endpoint
    call: Call
    spec: RequestSpec
    outlet: Outlet
    deadline_s: float


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

    The hints' headers are taken off: they are ours, and no business of the provider.

    Raises:
        ValueError: a hint that cannot be, such as an unknown class.

    """
    body = jsonio.loads_object(content) or {}
    call = call_of(endpoint.kind, body)
    asked = _asked(request.headers)
    spec = RequestSpec(
        traffic_class=asked.traffic_class,
        deadline_s=asked.deadline_s,
        expires_in_s=asked.deadline_s,  # it stops waiting when its deadline has passed
        tokens=asked.tokens,
        max_tokens=call.max_tokens,
        tenant=asked.tenant or "",
        model=call.model,
        session=asked.session or "",
        body=body,
        route=asked.route or "",
        endpoint=endpoint.kind.value,
        vendor=endpoint.vendor.value,
    )
    if upstream is None:
        url = request.url
        host, port = url.host, url.port
        upstream = host if port is None else f"{host}:{port}"
    deadline_s = asked.deadline_s if asked.deadline_s is not None else math.inf
    return Plan(endpoint, call, spec, penstock.outlet(upstream), deadline_s)


def _asked(headers: Any) -> Asked:
    asked = CURRENT.get()
    # One look at the names for all six, most calls having none: a look-up costs 0.6 us.
    for name, _ in headers.raw:
        if name[:_MARK_LENGTH].lower() == _MARK:
            break
    else:
        return asked
    said = {name: headers[name] for name in HINT_HEADERS if name in headers}
    for each in said:
        del headers[each]
    hints = hints_of(said)

    def first(hint: Any, block: Any) -> Any:
        return block if hint is None else hint

    return Asked(
        first(hints.traffic_class, asked.traffic_class),
        first(hints.deadline_s, asked.deadline_s),
        first(hints.tenant, asked.tenant),
        first(hints.session, asked.session),
        first(hints.route, asked.route),
        first(hints.tokens, asked.tokens),
    )
