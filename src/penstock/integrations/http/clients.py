"""HTTP clients for the SDKs, ready made."""

import importlib
import importlib.util
import sys
from typing import Any, Literal

from penstock.integrations.program import Penstock

Library = Literal["httpx2", "httpx"]
_SDK_DEFAULTS = {"max_connections": 1000, "max_keepalive_connections": 100}
_SDK_TIMEOUT_S = 600.0
_SDK_CONNECT_TIMEOUT_S = 5.0


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
    module, transports = _modules(library)
    client = module.AsyncClient(**_with_defaults(module, options))
    _wrap(client, transports.AsyncTransport, penstock, upstream)
    return client


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
    module, transports = _modules(library)
    made = module.Client(**_with_defaults(module, options))
    _wrap(made, transports.Transport, penstock, upstream)
    return made


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
    made = client
    for _ in range(3):  # an SDK's client holds the library's
        for library in ("httpx2", "httpx"):
            module = sys.modules.get(library)
            if module is not None and isinstance(made, module.AsyncClient | module.Client):
                transports = _modules(library)[1]
                sync = isinstance(made, module.Client)
                kind = transports.Transport if sync else transports.AsyncTransport
                _wrap(made, kind, penstock, upstream)
                return client
        made = getattr(made, "_client", None)
    raise TypeError(
        f"{type(client).__name__} holds no httpx2 or httpx client: pass it penstock.client() or "
        "penstock.async_client() when it is made"
    )


def _modules(library: str | None) -> tuple[Any, Any]:
    if library is None:
        found = (name for name in ("httpx2", "httpx") if importlib.util.find_spec(name))
        library = next(found, None)
        if library is None:
            raise ModuleNotFoundError(
                "neither httpx2 nor httpx is installed: the SDKs bring one, or pip install httpx2"
            )
    transports = importlib.import_module(f"penstock.integrations.http.{library}_transports")
    return importlib.import_module(library), transports


def _with_defaults(module: Any, options: dict[str, Any]) -> dict[str, Any]:
    timeout = module.Timeout(_SDK_TIMEOUT_S, connect=_SDK_CONNECT_TIMEOUT_S)
    limits = module.Limits(**_SDK_DEFAULTS)
    return {"timeout": timeout, "limits": limits, "follow_redirects": True, **options}


def _wrap(client: Any, transport: Any, penstock: Penstock | None, upstream: str | None) -> None:
    """Put our transport around those that the client made for itself.

    Passing ours in instead would switch off the client's own proxies from the environment.
    """

    def wrapped(inner: Any) -> Any:
        if isinstance(inner, transport):
            return inner
        return transport(inner, penstock=penstock, upstream=upstream)

    client._transport = wrapped(client._transport)  # noqa: SLF001 - see above; a test holds it
    mounts = client._mounts  # noqa: SLF001
    for pattern, inner in mounts.items():
        if inner is not None:
            mounts[pattern] = wrapped(inner)
