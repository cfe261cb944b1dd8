import math

from hypothesis import given
from hypothesis import strategies as st

from penstock.experiments.results import average, mean_of


@given(st.lists(st.floats(0.01, 1e4), min_size=2, max_size=8))
def test_an_interval_holds_its_mean_and_stays_within_the_values(values: list[float]) -> None:
    found = mean_of(tuple(values))

    assert found.low <= found.mean * (1 + 1e-9)
    assert found.mean <= found.high * (1 + 1e-9)
    assert min(values) * (1 - 1e-9) <= found.low
    assert found.high <= max(values) * (1 + 1e-9)


def test_five_seeds_have_the_interval_that_resampling_gives() -> None:
    found = mean_of((1.0, 2.0, 3.0, 4.0, 5.0))

    assert found.mean == 3.0
    assert 1.6 <= found.low <= 2.0
    assert 4.0 <= found.high <= 4.4
    assert found == mean_of((1.0, 2.0, 3.0, 4.0, 5.0))


def test_figures_that_no_run_has_are_unknown_and_do_not_count() -> None:
    assert not mean_of((None, None)).known
    assert mean_of((None, 2.0)).mean == 2.0
    assert math.isnan(average([]))
    assert average([None, 1.0, 3.0]) == 2.0
