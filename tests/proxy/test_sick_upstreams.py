"""An answer is good only if it shows it: every call is served while one upstream of two is sick."""

import pytest

from tests.proxy.sick import CALLS, WAYS, served

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("way", WAYS)
def test_every_call_is_served_by_the_well_one(way: str) -> None:
    good, asked = served(way)

    assert good == CALLS
    if "not to be repeated" in way:  # is about that one call: the next one may be tried there
        assert 1 <= asked <= CALLS
    else:
        assert 1 <= asked <= CALLS // 2  # it was tried, found out, and left alone
