"""The figures of the evaluation, against their definitions written the slow way."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.predict.evaluate import pair_ranking, score, spearman

COUNTS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 10)), min_size=1, max_size=60)


@given(COUNTS)
def test_ranking_counts_every_pair_of_different_length_and_ties_half(
    rows: list[tuple[int, int]],
) -> None:
    points = [
        1.0 if (a - c) * (b - d) > 0 else 0.5 if b == d else 0.0
        for (a, b), (c, d) in combinations(rows, 2)
        if a != c
    ]
    lengths, p50 = (np.array(column, float) for column in zip(*rows, strict=True))

    expected = sum(points) / len(points) if points else None
    assert pair_ranking(lengths, p50) == pytest.approx(expected)


def test_a_perfect_estimate_scores_perfectly() -> None:
    lengths = np.array([1.0, 64, 65, 256, 257, 1024, 1025])
    figures = score(lengths, lengths, lengths)

    assert figures.bucket_accuracy == figures.pair_ranking == figures.p90_coverage == 1.0
    assert figures.spearman == pytest.approx(1.0)
    assert figures.median_multiplicative_error == 1.0
    assert figures.pinball_p50_log == figures.pinball_p90_log == 0.0


def test_twice_too_much_and_half_too_little_are_the_same_error() -> None:
    figures = score(np.array([100.0, 100.0]), np.array([200.0, 50.0]), np.array([200.0, 90.0]))

    assert figures.median_multiplicative_error == pytest.approx(2.0)
    assert figures.pinball_p50_log == pytest.approx(0.5 * math.log(2))
    assert figures.p90_coverage == 0.5


def test_no_reply_and_equal_replies_leave_undefined_figures_out() -> None:
    none = np.empty(0)
    assert score(none, none, none).bucket_accuracy is None
    equal = np.array([5.0, 5.0])
    assert score(equal, equal, equal).pair_ranking is None
    assert spearman(equal, np.array([1.0, 2.0])) is None
