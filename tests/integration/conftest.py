"""The same provider directly, through the sidecar and in process: SDKs see no difference."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from penstock import Penstock, PolicySpec, Stack
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import eventually, in_front_of, sidecar

FAST = {"model": "slots", "slots": 16, "tokens_per_s": 2000.0, "ttft_s": 0.01}


@dataclass
class Way:
    """How a test reaches the provider."""

    name: str
    url: str
    mock: MockServer
    penstock: Penstock | None = None

    def client(self) -> Any:
        """Return what a sync SDK takes as `http_client`; None is its own."""
        return None if self.penstock is None else self.penstock.client(library=self.http_library)

    def async_client(self) -> Any:
        """Return what an async SDK takes as `http_client`; None is its own."""
        return (
            None if self.penstock is None else self.penstock.async_client(library=self.http_library)
        )

    @property
    def http_library(self) -> Any:
        """The HTTP library under the SDK."""
        return "httpx" if self.name == "in process on httpx" else "httpx2"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with MockServer(MockSettings(provider=FAST)) as server:
        yield server


@pytest.fixture(params=["direct", "sidecar", "in process"])
def way(request: pytest.FixtureRequest, mock: MockServer) -> Iterator[Way]:
    if request.param == "direct":
        yield Way("direct", mock.url, mock)
        return
    if request.param.startswith("in process"):
        stack = Stack(capacity=PolicySpec("fixed", {"window": 16}))
        with Penstock(stack=stack) as scheduled:
            yield Way(request.param, mock.url, mock, scheduled)
            eventually(lambda: not any(each.in_flight for each in scheduled.snapshot().values()))
        return
    with sidecar(in_front_of(mock.url, window=16)) as running:
        yield Way("sidecar", running.url, mock)
