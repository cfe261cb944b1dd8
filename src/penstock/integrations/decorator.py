"""Schedules any function that calls a model."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from penstock.integrations import default
from penstock.integrations.program import DEFAULT_UPSTREAM, Penstock
from penstock.runtime.guarded import tell_once
from penstock.wire.endpoint import Kind
from penstock.wire.usage import CACHED_NAME, COUNT_NAMES, DETAILS_NAMES, Usage, usage_of_object

P = ParamSpec("P")
R = TypeVar("R")


def scheduled(
    *,
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

    Args:
        usage: gets the usage out of what the function returns; by default its `usage` attribute
            is read, as OpenAI's and Anthropic's objects have it.
        upstream: which provider the calls go to, by a name of your choice.
        penstock: the program's if None.
        words: fields of `RequestSpec`, as for `gate().admit`; `class_` is `traffic_class`. A
            function is called with each call's arguments: `prompt=lambda text: text` shows the
            predictor what is asked, `tokens=lambda text: len(text)` states a length.

    Raises:
        Refused: from the decorated function, if the scheduler says no.

    """

    def read(result: Any) -> Usage | None:
        """Return the usage; None, and a line in the log, where the program's hook raises."""
        try:
            return (usage or usage_of_result)(result)
        except Exception as error:  # noqa: BLE001 - logged: the reply is paid for, and goes out
            tell_once("usage= failed to read a reply", error)
            return None

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                gate = (penstock or default.default()).gate(upstream)
                async with gate.admit(**words_of(words, args, kwargs)) as slot:
                    result = await function(*args, **kwargs)
                    slot.settle(read(result))
                    return result

            return cast("Callable[P, R]", call_async)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            gate = (penstock or default.default()).sync_gate(upstream)
            with gate.admit(**words_of(words, args, kwargs)) as slot:
                result = function(*args, **kwargs)
                slot.settle(read(result))
                return result

        return call

    return decorate


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
    return None if found.source == "unknown" else found
