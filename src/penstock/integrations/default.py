"""The penstock that a program gets without making one, and the functions that use it."""

import os
import threading
from typing import Any

from penstock.core.snapshot import Snapshot
from penstock.integrations.clients import Library
from penstock.integrations.context import ProgramGate, ProgramSyncGate
from penstock.integrations.program import DEFAULT_UPSTREAM, Penstock

_default: Penstock | None = None
_making = threading.Lock()


def configure(**options: Any) -> Penstock:
    """Make the program's penstock with these options; best once, before the first call.

    Where it exists already, as in a notebook whose cell is run again, it is configured anew:
    clients, gates and decorated functions keep to it, and what was learnt is forgotten.

    Args:
        options: those of `Penstock`.

    Raises:
        RuntimeError: calls wait or fly.
        ConfigError, ValueError: as `Penstock` does.

    """
    global _default  # noqa: PLW0603 - the program has one
    with _making:
        made = Penstock(**options)
        if _default is None:
            _default = made
        else:
            _default.become(made)
        return _default


def default() -> Penstock:
    """Return the program's penstock; made with the defaults if nobody configured it."""
    global _default  # noqa: PLW0603 - the program has one
    if _default is None:
        with _making:
            if _default is None:
                _default = Penstock()
    return _default


def gate(name: str = DEFAULT_UPSTREAM) -> ProgramGate:
    """Return the gate for coroutines in front of a provider, by a name of your choice."""
    return default().gate(name)


def sync_gate(name: str = DEFAULT_UPSTREAM) -> ProgramSyncGate:
    """Return the gate for threads in front of a provider, by a name of your choice."""
    return default().sync_gate(name)


def snapshot() -> dict[str, Snapshot]:
    """Return the state of each provider's scheduler, by name."""
    return default().snapshot()


def async_client(
    *,
    penstock: Penstock | None = None,
    upstream: str | None = None,
    library: Library | None = None,
    **options: Any,
) -> Any:
    """Return an `AsyncClient` whose model calls are scheduled: `AsyncOpenAI(http_client=...)`.

    Timeouts, limits and redirects are as the official SDKs set them, unless the options say
    otherwise; proxies, certificates and mounts work as ever. A timeout counts from the moment
    at which a call is let through; how long it may queue is its deadline's business.

    Args:
        penstock: schedules; the program's if None.
        upstream: a name for the provider; its host if None.
        library: "httpx2" (openai >= 3, anthropic >= 2) or "httpx"; the first installed if None.
        options: of the library's `AsyncClient`.

    Raises:
        ModuleNotFoundError: neither library is installed.

    """
    return (penstock or default()).async_client(upstream=upstream, library=library, **options)


def client(
    *,
    penstock: Penstock | None = None,
    upstream: str | None = None,
    library: Library | None = None,
    **options: Any,
) -> Any:
    """Return a `Client` whose model calls are scheduled: `OpenAI(http_client=...)`.

    Takes what `async_client` takes; threads and event loops share one scheduler.
    """
    return (penstock or default()).client(upstream=upstream, library=library, **options)


def adopt(client: Any, *, penstock: Penstock | None = None, upstream: str | None = None) -> Any:
    """Schedule a client that exists already: an SDK's, or an httpx2 or httpx one; return it.

    For libraries that make their clients themselves. The client is changed in place; adopting
    it again does nothing.

    Args:
        client: such as `OpenAI()`, `AsyncAnthropic()` or `httpx2.Client()`.
        penstock: schedules; the program's if None.
        upstream: a name for the provider; its host if None.

    Raises:
        TypeError: no HTTP client is found in it.

    """
    return (penstock or default()).adopt(client, upstream=upstream)


def _free() -> None:
    """Let nobody hold the lock in a forked child; `Penstock.renew` does the rest."""
    global _making  # noqa: PLW0603
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free)
