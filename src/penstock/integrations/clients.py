"""HTTP clients for the SDKs, ready made."""

import importlib
import importlib.util
import sys
from typing import Any, Literal

Library = Literal["httpx2", "httpx"]
_SDK_DEFAULTS = {"max_connections": 1000, "max_keepalive_connections": 100}
_SDK_TIMEOUT_S = 600.0
_SDK_CONNECT_TIMEOUT_S = 5.0


class HttpClients:
    """Makes HTTP clients whose calls it schedules: what a `Penstock` does for the SDKs."""

    def async_client(
        self, *, upstream: str | None = None, library: Library | None = None, **options: Any
    ) -> Any:
        """Return an httpx2 (or httpx) `AsyncClient` that this penstock schedules.

        See `penstock.async_client`.
        """
        module, transports = _modules(library)
        client = module.AsyncClient(**_with_defaults(module, options))
        return self._scheduling(client, transports.AsyncTransport, upstream)

    def client(
        self, *, upstream: str | None = None, library: Library | None = None, **options: Any
    ) -> Any:
        """Return an httpx2 (or httpx) `Client` that this penstock schedules.

        See `penstock.client`.
        """
        module, transports = _modules(library)
        client = module.Client(**_with_defaults(module, options))
        return self._scheduling(client, transports.Transport, upstream)

    def adopt(self, client: Any, *, upstream: str | None = None) -> Any:
        """Schedule a client that exists already, and return it. See `penstock.adopt`."""
        made = client
        for _ in range(3):  # an SDK's client holds the library's
            for library in ("httpx2", "httpx"):
                module = sys.modules.get(library)
                if module is not None and isinstance(made, module.AsyncClient | module.Client):
                    transports = _modules(library)[1]
                    sync = isinstance(made, module.Client)
                    kind = transports.Transport if sync else transports.AsyncTransport
                    self._scheduling(made, kind, upstream)
                    return client
            made = getattr(made, "_client", None)
        raise TypeError(
            f"{type(client).__name__} holds no httpx2 or httpx client: pass it penstock.client() "
            "or penstock.async_client() when it is made"
        )

    def _scheduling(self, client: Any, transport: Any, upstream: str | None) -> Any:
        """Put our transport around those that the client made for itself.

        Passing ours in instead would switch off the client's own proxies from the environment.
        """

        def wrapped(inner: Any) -> Any:
            if isinstance(inner, transport):
                return inner
            return transport(inner, penstock=self, upstream=upstream)

        client._transport = wrapped(client._transport)  # noqa: SLF001 - see above; a test holds it
        mounts = client._mounts  # noqa: SLF001
        for pattern, inner in mounts.items():
            if inner is not None:
                mounts[pattern] = wrapped(inner)
        return client


def _modules(library: str | None) -> tuple[Any, Any]:
    """Return the HTTP library, and our transports for it."""
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
