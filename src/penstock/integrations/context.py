"""What the calls inside a block ask for: class, deadline, tenant, session, route, length.

Set in a context variable, so it follows awaits and tasks; into threads with `inherit_in_threads`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from penstock.calls.hints import NO_HINTS, Hints
from penstock.calls.spec import stated
from penstock.runtime.guarded import Guard

CURRENT: ContextVar[Hints] = ContextVar("penstock_request", default=NO_HINTS)
_GUARD = Guard()
"""Of blocks, which belong to no provider's driver."""


@contextmanager
def request(
    *,
    class_: str | None = None,
    deadline_s: float | None = None,
    tenant: str | None = None,
    session: str | None = None,
    route: str | None = None,
    tokens: float | tuple[float, float] | None = None,
) -> Iterator[Hints]:
    """Set what the calls inside the block ask for; inner blocks override outer ones.

    Follows awaits, tasks and `asyncio.to_thread`; threads and thread-pool jobs started inside the
    block once the program has called `penstock.inherit_in_threads()`. Headers on a single call
    win: `x-penstock-class`, `x-penstock-deadline-ms`, `x-penstock-tenant`, `x-penstock-session`,
    `x-penstock-route`, `x-penstock-tokens`.

    Args:
        class_: the traffic class, by name.
        deadline_s: seconds from each call's submission until its last token is wanted; a call
            that still waits then is refused.
        tenant: whom it is for.
        session: the conversation, for upstreams with a prompt cache.
        route: a name for this kind of call, for the predictor.
        tokens: how many output tokens each call will have, where you know better than a
            prediction: a count, or a median and a 90th percentile; a call's own `max_tokens`
            caps it. Nothing is predicted then; a learning predictor learns from the replies
            all the same.

    Raises:
        ValueError: a deadline that is not above 0, or tokens that are no length of a reply.

    """
    if deadline_s is not None and not deadline_s > 0:
        raise ValueError(
            f"deadline_s={deadline_s!r} is not a time to come: it must be above 0 seconds; "
            "was a point in time given instead of a span?"
        )
    said: dict[str, Any] = {
        "traffic_class": class_,
        "deadline_s": deadline_s,
        "tenant": tenant,
        "session": session,
        "route": route,
        "tokens": None if tokens is None else stated(tokens),
    }
    asked = replace(CURRENT.get(), **{k: v for k, v in said.items() if v is not None})
    token = CURRENT.set(asked)
    try:
        yield asked
    finally:
        try:
            CURRENT.reset(token)
        except ValueError as error:  # the context that it was set in has ended by itself
            _GUARD.hook_failed(
                "block",
                "a penstock.request block was left in another context than it was entered in, so "
                "calls between may not have seen it: is it in a synchronous dependency of FastAPI "
                "(make it `async def`), or in a generator that two tasks run?",
                error,
            )
