"""Oblivious trees: what they fit, and that one call and many get the same answer."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.predict.train.training import TreeOptions, grow


def test_trees_find_the_feature_that_matters() -> None:
    rows = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    targets = np.where(rows[:, 3] > 0.2, 1.0, -1.0)

    trees = grow(rows, targets, TreeOptions(trees=100, depth=2, feature_share=1.0))

    assert np.abs(trees.values(rows) - targets).mean() < 0.15


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 4))
def test_one_call_and_many_get_the_same_answer(seed: int, count: int, kinds: int) -> None:
    chance = np.random.default_rng(seed)
    rows = chance.integers(0, kinds, size=(count, 3)).astype(np.float32)  # few values, or one
    targets = chance.normal(size=count)

    trees = grow(rows, targets, TreeOptions(trees=5, depth=3))

    assert np.allclose(trees.values(rows), [trees.value(row) for row in rows], atol=1e-5)


def test_the_same_data_grow_the_same_trees() -> None:
    rows = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    one = grow(rows, rows[:, 0].astype(float), TreeOptions(trees=10))
    two = grow(rows, rows[:, 0].astype(float), TreeOptions(trees=10))

    assert np.array_equal(one.leaves, two.leaves)
    assert np.array_equal(one.thresholds, two.thresholds)
