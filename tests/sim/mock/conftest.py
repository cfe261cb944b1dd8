"""A mock that answers at once, shared by the tests of a module."""

from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.sim.mock.world import QUICK


@pytest.fixture(scope="module")
def quick() -> Iterator[MockServer]:
    with MockServer(MockSettings(QUICK, tick_s=0.001)) as server:
        yield server


@pytest.fixture
async def http(quick: MockServer) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=quick.url) as client:
        yield client
