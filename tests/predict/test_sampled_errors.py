"""Replaying the errors of a real predictor."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.predict import SampledErrors


def test_short_replies_are_overestimated_and_long_ones_underestimated_as_recorded() -> None:
    errors = SampledErrors([(10.0, 20.0, 40.0)] * 200 + [(1000.0, 500.0, 900.0)] * 200)

    assert errors.estimate(10, u=0.5).p50_tokens == pytest.approx(20)
    assert errors.estimate(1000, u=0.5).p50_tokens == pytest.approx(500)
    assert errors.estimate(2000, u=0.0).p90_tokens == pytest.approx(1800)


@given(actual=st.floats(0, 1e6), u=st.floats(0, 1, exclude_max=True))
def test_every_length_gets_an_estimate_and_the_same_one_twice(actual: float, u: float) -> None:
    errors = SampledErrors.shipped()

    estimate = errors.estimate(actual, u=u)

    assert estimate == errors.estimate(actual, u=u)
    assert 1 <= estimate.p50_tokens <= estimate.p90_tokens


def test_the_shipped_sample_has_the_spread_of_a_real_predictor() -> None:
    errors = SampledErrors.shipped()
    ratios = sorted(errors.estimate(200, u=number / 100).p50_tokens / 200 for number in range(100))

    assert ratios[5] < 0.85
    assert ratios[94] > 1.15


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "errors.csv"
    path.write_text("actual,guess\n5,6\n")

    with pytest.raises(ConfigError, match="missing"):
        SampledErrors.load(path)


def test_swapped_quantiles_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 <= p50 <= p90"):
        SampledErrors([(10, 20, 5)])
    with pytest.raises(ConfigError, match="no recorded predictions"):
        SampledErrors([])
