"""A scheduler in front of black-box LLM APIs. See `penstock.async_client` to begin.

Importing this package imports nothing else: names load what they need when they are first used.
"""

TYPE_CHECKING = False  # importing it from typing would cost 6 ms; checkers know the name
if TYPE_CHECKING:
    from penstock.core.model import TokenEstimate as TokenEstimate
    from penstock.core.model import TrafficClass as TrafficClass
    from penstock.core.settings import Limits as Limits
    from penstock.core.settings import PolicySpec as PolicySpec
    from penstock.core.settings import Stack as Stack
    from penstock.core.settings import UpstreamSettings as UpstreamSettings
    from penstock.errors import ConfigError as ConfigError
    from penstock.errors import PenstockError as PenstockError
    from penstock.errors import ProtocolError as ProtocolError
    from penstock.errors import Refused as Refused
    from penstock.integrations.context import request as request
    from penstock.integrations.decorator import scheduled as scheduled
    from penstock.integrations.default import adopt as adopt
    from penstock.integrations.default import async_client as async_client
    from penstock.integrations.default import client as client
    from penstock.integrations.default import configure as configure
    from penstock.integrations.default import default as default
    from penstock.integrations.default import gate as gate
    from penstock.integrations.default import snapshot as snapshot
    from penstock.integrations.default import sync_gate as sync_gate
    from penstock.integrations.http import httpx_transports
    from penstock.integrations.http.httpx2_transports import AsyncTransport as AsyncTransport
    from penstock.integrations.http.httpx2_transports import Transport as Transport

    HttpxAsyncTransport = httpx_transports.AsyncTransport
    HttpxTransport = httpx_transports.Transport
    from penstock.calls.spec import RequestSpec as RequestSpec
    from penstock.integrations.context import inherit_in_threads as inherit_in_threads
    from penstock.integrations.http.refusing import refusal_of as refusal_of
    from penstock.integrations.program import Penstock as Penstock
    from penstock.runtime.telemetry import Hooks as Hooks
    from penstock.wire.usage import Usage as Usage

_HOMES = {
    "AsyncTransport": "penstock.integrations.http.httpx2_transports",
    "ConfigError": "penstock.errors",
    "Hooks": "penstock.runtime.telemetry",
    "HttpxAsyncTransport": "penstock.integrations.http.httpx_transports:AsyncTransport",
    "HttpxTransport": "penstock.integrations.http.httpx_transports:Transport",
    "Limits": "penstock.core.settings",
    "Penstock": "penstock.integrations.program",
    "PenstockError": "penstock.errors",
    "PolicySpec": "penstock.core.settings",
    "ProtocolError": "penstock.errors",
    "Refused": "penstock.errors",
    "RequestSpec": "penstock.calls.spec",
    "Stack": "penstock.core.settings",
    "TokenEstimate": "penstock.core.model",
    "TrafficClass": "penstock.core.model",
    "Transport": "penstock.integrations.http.httpx2_transports",
    "UpstreamSettings": "penstock.core.settings",
    "Usage": "penstock.runtime.slot",
    "adopt": "penstock.integrations.default",
    "async_client": "penstock.integrations.default",
    "client": "penstock.integrations.default",
    "configure": "penstock.integrations.default",
    "default": "penstock.integrations.default",
    "gate": "penstock.integrations.default",
    "inherit_in_threads": "penstock.integrations.context",
    "refusal_of": "penstock.integrations.http.refusing",
    "request": "penstock.integrations.context",
    "scheduled": "penstock.integrations.decorator",
    "snapshot": "penstock.integrations.default",
    "sync_gate": "penstock.integrations.default",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - computed, so that it cannot go stale


def __getattr__(name: str) -> object:
    """Load a public name from its home."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = home.partition(":")
    value: object = getattr(import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
