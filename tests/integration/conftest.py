"""The same provider, directly and through the sidecar: SDKs must not tell the difference."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from penstock.sim.mock.server import MockServer
from penstock.sim.mock.settings import MockSettings
from tests.proxy.sidecars import in_front_of, sidecar

FAST = {"model": "slots", "slots": 16, "tokens_per_s": 2000.0, "ttft_s": 0.01}


@dataclass
class Way:
    """How a test reaches the provider."""

    name: str
    url: str
    mock: MockServer


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with MockServer(MockSettings(provider=FAST)) as server:
        yield server


@pytest.fixture(params=["direct", "sidecar"])
def way(request: pytest.FixtureRequest, mock: MockServer) -> Iterator[Way]:
    if request.param == "direct":
        yield Way("direct", mock.url, mock)
        return
    with sidecar(in_front_of(mock.url, window=16)) as running:
        yield Way("sidecar", running.url, mock)
