"""One fast provider and one sidecar in front of it, shared by a file's tests."""

from collections.abc import Iterator

import pytest

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import SidecarThread, in_front_of, sidecar

FAST = {"model": "slots", "slots": 16, "tokens_per_s": 2000.0, "ttft_s": 0.01}


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with MockServer(MockSettings(provider=FAST)) as server:
        yield server


@pytest.fixture
def proxy(mock: MockServer) -> Iterator[SidecarThread]:
    with sidecar(in_front_of(mock.url)) as running:
        yield running


@pytest.fixture(scope="module")
def shared(mock: MockServer) -> Iterator[SidecarThread]:
    with sidecar(in_front_of(mock.url)) as running:
        yield running
