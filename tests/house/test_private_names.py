"""Which private names of libraries penstock leans on: a release that moves one fails here first."""

import asyncio
import importlib
import inspect
import pkgutil
import re
from typing import Any

import httpx
import httpx2
import pytest
from aiohttp import TCPConnector
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_writer import StreamWriter
from aiohttp.web_protocol import RequestHandler
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

import penstock

INHERITED = {
    RequestHandler: {
        "_buffer_paused", "_keepalive_handle", "_messages", "_next_keepalive_close_time",
        "_process_keepalive", "_reading_paused", "_request_count",
    },
    ResponseHandler: {
        "_drop_timeout", "_loop", "_on_read_timeout", "_reading_paused", "_reschedule_timeout",
    },
    PeriodicExportingMetricReader: {"_receive_metrics"},
}  # fmt: skip
"""Used by classes of ours that inherit from these; the last is its documented hook."""


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_librarys_own_transport_has_a_pool_whose_connections_may_be_ours(library: Any) -> None:
    for transport in (library.HTTPTransport(), library.AsyncHTTPTransport()):
        assert hasattr(transport._pool, "_network_backend")
    with library.Client() as client:
        assert client._transport
        assert isinstance(client._mounts, dict)


async def test_aiohttps_writers_and_connectors_have_what_is_replaced_in_them() -> None:
    connector = TCPConnector()
    assert hasattr(connector, "_factory")
    await connector.close()
    loop = asyncio.get_running_loop()
    assert StreamWriter(BaseProtocol(loop), loop)._headers_buf is None


def test_the_exporter_of_spans_has_what_sends_bytes() -> None:
    exporter = OTLPSpanExporter()
    assert callable(exporter._client.export)
    exporter.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("kind", INHERITED, ids=lambda kind: kind.__name__)
def test_what_is_inherited_is_there(kind: type[Any]) -> None:
    assert {name for name in INHERITED[kind] if not hasattr(kind, name)} == set()


def test_no_other_private_name_is_inherited() -> None:
    used: dict[type[Any], set[str]] = {}
    for module in pkgutil.walk_packages(penstock.__path__, "penstock."):
        if module.name.startswith(("penstock.proxy", "penstock.listener", "penstock.telemetry")):
            for each in vars(importlib.import_module(module.name)).values():
                if inspect.isclass(each) and each.__module__ == module.name:
                    for kind, names in inherited_by(each).items():
                        used.setdefault(kind, set()).update(names)

    assert used == INHERITED


def inherited_by(ours: type[Any]) -> dict[type[Any], set[str]]:
    """Return the private names that a class of ours uses or overrides, by the library's class."""
    text = inspect.getsource(ours)
    names = set(re.findall(r"(?:self\.|super\(\)\.|def )(_[a-z]\w*)", text))
    found: dict[type[Any], set[str]] = {}
    for kind in ours.__mro__:
        if kind.__module__.partition(".")[0] in ("aiohttp", "opentelemetry"):
            taken = {name for name in names if hasattr(kind, name)}
            names -= taken
            if taken:
                found[kind] = taken
    return found
