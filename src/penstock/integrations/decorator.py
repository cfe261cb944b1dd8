"""Schedules any function that calls a model."""

import functools
import inspect
from collections.abc import Callable
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, Never, ParamSpec, TypeVar, cast

from penstock.integrations import default
from penstock.integrations.program import DEFAULT_UPSTREAM, Penstock
from penstock.runtime.slot import Hold, Slot, SyncSlot
from penstock.wire.endpoint import Kind
from penstock.wire.usage import CACHED_NAME, COUNT_NAMES, DETAILS_NAMES, Usage, usage_of_object

P = ParamSpec("P")
R = TypeVar("R")


def scheduled(
    *bare: Never,
    usage: Callable[[Any], Usage | None] | None = None,
    upstream: str = DEFAULT_UPSTREAM,
    penstock: Penstock | None = None,
    **words: Any,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let each call of the decorated function wait for a slot and hold it while it runs.

    ```python
    @penstock.scheduled(class_="batch", max_tokens=300, prompt=lambda text: text)
    async def summarise(text: str) -> Reply: ...
    ```

    Functions, coroutine functions, generators and async generators (a slot is held from the first
    item to the last), methods, static and class methods, `functools.partial` and objects with a
    `__call__` of any of these kinds.

    Args:
        bare: nothing; a function stands here where the decorator's brackets were left out.
        usage: gets the usage out of what the function returns; by default its `usage` attribute
            is read, as OpenAI's and Anthropic's objects have it. Of a generator it gets the last
            item.
        upstream: which provider the calls go to, by a name of your choice.
        penstock: the program's if None.
        words: fields of `RequestSpec`, as for `gate().admit`; `class_` is `traffic_class`. A
            function is called with each call's arguments: `prompt=lambda text: text` shows the
            predictor what is asked, `tokens=lambda text: len(text)` states a length.

    Raises:
        Refused: from the decorated function, if the scheduler says no.
        TypeError: its brackets are missing, or it cannot limit this: a class, or (from the
            decorated function) what returns an awaitable or a generator and is neither by itself.

    """
    if bare:
        raise TypeError(
            f"@scheduled got {bare[0]!r} and no settings: were its brackets left out? Write "
            '@penstock.scheduled(), or with settings @penstock.scheduled(class_="batch")'
        )
    slots = _Slots(usage or usage_of_result, upstream, penstock, words)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if isinstance(function, staticmethod | classmethod):
            return cast("Callable[P, R]", type(function)(decorate(function.__func__)))
        return cast("Callable[P, R]", functools.wraps(function)(_wrapper(function, slots)))

    return decorate


@dataclass(frozen=True, slots=True)
class _Slots:
    """Where a decorated function's slots come from, and what ends them."""

    usage: Callable[[Any], Usage | None]
    upstream: str
    penstock: Penstock | None
    words: dict[str, Any]

    def admit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slot:
        gate = (self.penstock or default.default()).gate(self.upstream)
        return gate.admit(**words_of(self.words, args, kwargs))

    def admit_sync(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SyncSlot:
        gate = (self.penstock or default.default()).sync_gate(self.upstream)
        return gate.admit(**words_of(self.words, args, kwargs))

    def read(self, result: Any, slot: Hold) -> Usage | None:
        """Return the usage; None, and a line in the log, where the program's hook raises."""
        try:
            return self.usage(result)
        except Exception as error:  # noqa: BLE001 - logged: the reply is paid for, and goes out
            slot.driver.guard.hook_failed("usage", "usage= failed to read a reply", error)
            return None


def _wrapper(function: Any, slots: _Slots) -> Callable[..., Any]:
    """Return a function of the same kind that holds a slot while it runs."""
    kinds = _Kinds.of(function)

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        async with slots.admit(args, kwargs) as slot:
            result = _whole(function, await function(*args, **kwargs))
            slot.settle(slots.read(result, slot))
            return result

    async def iterate_async(*args: Any, **kwargs: Any) -> Any:
        async with slots.admit(args, kwargs) as slot, aclosing(function(*args, **kwargs)) as items:
            item = None
            async for item in items:
                slot.first_token()
                yield item
            slot.settle(slots.read(item, slot))

    def iterate(*args: Any, **kwargs: Any) -> Any:
        with slots.admit_sync(args, kwargs) as slot, closing(function(*args, **kwargs)) as items:
            item = None
            for item in items:
                slot.first_token()
                yield item
            slot.settle(slots.read(item, slot))

    def call(*args: Any, **kwargs: Any) -> Any:
        with slots.admit_sync(args, kwargs) as slot:
            result = _whole(function, function(*args, **kwargs))
            slot.settle(slots.read(result, slot))
            return result

    if kinds.coroutine:
        return call_async
    if kinds.async_generator:
        return iterate_async
    return iterate if kinds.generator else call


@dataclass(frozen=True, slots=True)
class _Kinds:
    """What calling something gives; the first that holds counts."""

    coroutine: bool
    async_generator: bool
    generator: bool

    @classmethod
    def of(cls, function: Any) -> "_Kinds":
        """Look through `functools.partial` and at the `__call__` of objects.

        Raises:
            TypeError: it is a class, or cannot be called.

        """
        if inspect.isclass(function) or not callable(function):
            raise TypeError(
                f"@scheduled on {function!r}: it takes functions, methods and objects with "
                "__call__; decorate the method that makes the call"
            )
        inner = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        faces = (function, inner, type(inner).__call__)
        return cls(
            any(map(inspect.iscoroutinefunction, faces)),
            any(map(inspect.isasyncgenfunction, faces)),
            any(map(inspect.isgeneratorfunction, faces)),
        )


def _whole(function: Any, result: Any) -> Any:
    """Return the result of a call that has been made; refuse one that is still to be made.

    Raises:
        TypeError: the slot would be given back before the model is asked.

    """
    for is_open, what in (
        (inspect.isawaitable, "an awaitable"),
        (inspect.isasyncgen, "an async generator"),
        (inspect.isgenerator, "a generator"),
    ):
        if is_open(result):
            if inspect.iscoroutine(result):
                result.close()  # or Python warns that it was never awaited
            name = getattr(function, "__qualname__", function)
            raise TypeError(
                f"@scheduled on {name!r}: it returned {what}, so the "
                "call would be made after its slot is given back; decorate the `async def` "
                "or generator function itself, or hold a slot of penstock.gate() around the call"
            )
    return result


def words_of(
    words: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the words for one call, with the functions among them called."""
    return {name: word(*args, **kwargs) if callable(word) else word for name, word in words.items()}


def usage_of_result(result: Any) -> Usage | None:
    """Return the usage that an SDK's result object carries; None if it has none."""
    usage = getattr(result, "usage", None)
    if usage is None:
        return None
    said = {name: getattr(usage, name, None) for name in COUNT_NAMES}
    for name in DETAILS_NAMES:
        details = getattr(usage, name, None)
        if details is not None:
            said[name] = {CACHED_NAME: getattr(details, CACHED_NAME, None)}
    # Anthropic's objects say apart what came from the cache; nobody else's have both names.
    apart = said["prompt_tokens"] is None and said["cache_read_input_tokens"] is not None
    found = usage_of_object(Kind.MESSAGES if apart else Kind.CHAT, {"usage": said})
    return None if found.source == "unknown" and not found.ignored else found
