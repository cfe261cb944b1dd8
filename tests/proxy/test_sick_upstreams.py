"""An answer is good only if it shows it: every call is served while one upstream of two is sick."""

import pytest

from tests.proxy.sick import CALLS, WAYS, served

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("way", WAYS)
def test_every_call_is_served_by_the_well_one(way: str) -> None:
    good, asked = served(way)

    assert good == CALLS
    assert 1 <= asked <= CALLS // 2  # it was tried, found out, and left alone
