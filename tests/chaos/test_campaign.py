"""Chaos on both sides: every request ends once, nothing is doubled, and all is as it was.

`make chaos` plays more of it.
"""

import pytest

from tests.chaos.campaign import DOORS, run


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_after_chaos_everything_is_as_it_was(door: str) -> None:
    found = run(door, seed=1, requests=150)

    assert found.wrong == []
    assert found.arrived > 50
    assert found.answered > 50
