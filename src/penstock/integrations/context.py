"""What the calls inside a block ask for: class, deadline, tenant, session, route, length.

Set in a context variable, so it follows awaits and tasks; into threads with `inherit_in_threads`.

Tasks and `asyncio.to_thread` do by themselves, plain threads and thread pools do not (unless Python
3.14 is told to by `-X thread_inherit_context`). Two methods of the standard library have to be
wrapped for it, which is why it is a switch and no default.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import replace
from functools import wraps
from typing import Any

from penstock.calls.hints import HINTS, NO_HINTS, Hints
from penstock.calls.spec import RequestSpec, stated
from penstock.runtime.gate import Gate, SyncGate
from penstock.runtime.guarded import Guard
from penstock.runtime.slot import Slot, SyncSlot

_switched = False
_switching = threading.Lock()


def inherit_in_threads() -> None:
    """Let threads and pool jobs that are started from now on see the `request` blocks around them.

    They inherit the whole context: every context variable, and which slots are held, so that a
    call that a thread makes for a call in progress is known to be nested. Once in a process;
    wraps `threading.Thread.start` and `ThreadPoolExecutor.submit`.
    """
    global _switched  # noqa: PLW0603 - once in a process
    with _switching:
        if not _switched:
            _wrap_thread()
            _wrap_pool()
            _switched = True


def _wrap_thread() -> None:
    start: Callable[[threading.Thread], None] = threading.Thread.start

    @wraps(start)
    def inheriting_start(self: threading.Thread) -> None:
        context, run = copy_context(), self.run
        self.run = lambda: context.run(run)  # type: ignore[method-assign]
        start(self)

    threading.Thread.start = inheriting_start  # type: ignore[method-assign]


def _wrap_pool() -> None:
    submit: Any = ThreadPoolExecutor.submit

    @wraps(submit)
    def inheriting_submit(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        return submit(self, copy_context().run, fn, *args, **kwargs)

    ThreadPoolExecutor.submit = inheriting_submit  # type: ignore[method-assign, assignment]


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


def completed(words: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of a `RequestSpec`, with the block's wishes where they say nothing.

    A call with a deadline of its own stops waiting when that has passed.

    Raises:
        TypeError: both `class_` and `traffic_class` were given.

    """
    if "class_" in words:
        if "traffic_class" in words:
            raise TypeError("give class_ or traffic_class, not both: they are the same")
        words["traffic_class"] = words.pop("class_")
    asked = CURRENT.get()
    if asked is not NO_HINTS:
        for name in HINTS:
            value = getattr(asked, name)
            if value is not None:
                words.setdefault(name, value)
    deadline_s = words.get("deadline_s")
    if deadline_s is not None:
        words.setdefault("expires_in_s", deadline_s)
    return words


class ProgramGate(Gate):
    """A gate for coroutines."""

    def admit(self, spec: RequestSpec | None = None, /, **words: Any) -> Slot:
        """Return a slot that is waited for on entry and given back on exit; it is entered once.

        Its times count from this call on.

        Args:
            spec: taken as it is; or its fields as keywords, completed by the block's.
            words: fields of `RequestSpec`; `class_` is `traffic_class`.

        Raises:
            Refused: on entry, if the scheduler says no.
            ValueError: the spec names an unknown class or an impossible time.

        """
        return super().admit(spec, **(completed(words) if spec is None else words))


class ProgramSyncGate(SyncGate):
    """A gate for threads."""

    def admit(self, spec: RequestSpec | None = None, /, **words: Any) -> SyncSlot:
        """Return a slot that is waited for on entry, in this thread; see `ProgramGate.admit`."""
        return super().admit(spec, **(completed(words) if spec is None else words))
