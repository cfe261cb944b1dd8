"""Refusals as the SDKs know them: the vendor's error response, or the vendor's own exception."""

import sys
from functools import cache
from typing import Any

from penstock.errors import Refused
from penstock.integrations.http.attempt import reopen
from penstock.integrations.http.plan import Plan
from penstock.wire import jsonio
from penstock.wire.errors import refusal_answer, refused_of_facts

EXTENSION = "penstock"
"""The key of our facts in a response's `extensions`."""


def refusal(library: Any, request: Any, plan: Plan, refused: Refused, *, spent_s: float) -> Any:
    """Return the response that stands for a refusal, or raise the SDK's own exception.

    Where the request comes from an official SDK, and that SDK would not try again, the exception
    raised is the SDK's own and a `penstock.Refused` at the same time: both `except` clauses
    catch it. Otherwise the response makes the SDK (or anyone's `raise_for_status`) act as it
    would on the vendor's answer; `penstock.refusal_of` finds the refusal behind it.

    Args:
        library: `httpx2` or `httpx`.
        request: the library's request.
        plan: of the request.
        refused: the scheduler's answer.
        spent_s: how much of the deadline is gone.

    """
    answer = refusal_answer(
        plan.endpoint.vendor, refused, deadline_left_s=plan.deadline_s - spent_s
    )
    response = library.Response(
        answer.status,
        headers={**answer.headers, **plan.said},
        content=answer.body,
        request=request,
        extensions={EXTENSION: refused},
    )
    reopen(response)
    error = _sdk_error(request, response, refused)
    if error is not None:
        raise error
    return response


def refusal_of(error: BaseException) -> Refused | None:
    """Return the refusal behind an SDK's or an HTTP library's exception; None if there is none.

    Works for in-process transports and for a penstock sidecar.
    """
    if isinstance(error, Refused):
        return error
    response = getattr(error, "response", None)
    found = getattr(response, "extensions", {}).get(EXTENSION)
    if isinstance(found, Refused):
        return found
    try:
        parsed = jsonio.loads_object(response.content) if response is not None else None
        facts = ((parsed or {}).get("error") or {})[EXTENSION]
        return refused_of_facts(facts)
    except (AttributeError, KeyError, TypeError, RuntimeError):
        return None


def _sdk_error(request: Any, response: Any, refused: Refused) -> BaseException | None:
    agent = request.headers.get("user-agent", "")
    if "OpenAI/Python" in agent and response.headers["x-should-retry"] == "false":
        # openai passes its own exceptions through at once; with a retry to come it must see the
        # response instead.
        module = sys.modules.get("openai")
    elif "Anthropic/Python" in agent:
        module = sys.modules.get("anthropic")  # retries its own exceptions as their response says
    else:
        return None
    if module is None:
        return None
    name = "RateLimitError" if response.status_code == 429 else "InternalServerError"
    kind = _both(getattr(module, name))
    error: BaseException = kind(str(refused), response=response, body=response.json())
    for field, value in vars(refused).items():
        setattr(error, field, value)
    return error


class _Quiet(Refused):
    """`Refused` with an initialiser that an SDK's chain of `super()` can call."""

    def __init__(self, *args: object) -> None:
        Exception.__init__(self, *args)


@cache
def _both(sdk_error: Any) -> Any:
    """Return a class that is the SDK's error and `Refused`."""
    return type(f"Refused{sdk_error.__name__}", (sdk_error, _Quiet), {})
