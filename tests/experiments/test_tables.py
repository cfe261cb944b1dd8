import math

import pytest

from penstock.experiments.tables import Column, ResultTable, by_group, number, with_interval


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.3541, "0.354"), (4.218, "4.22"), (17.26, "17.3"), (162.7, "163"), (math.nan, "-")],
)
def test_a_number_shows_three_digits_and_no_exponent(value: float, said: str) -> None:
    assert number(value) == said


def test_an_interval_stands_beside_its_mean_and_shares_are_per_cent() -> None:
    assert with_interval(0.354, 0.341, 0.367) == "0.354 [0.341, 0.367]"
    assert with_interval(0.9951, 0.99, 1.0, share=True) == "99.5 % [99.0, 100.0]"
    assert with_interval(math.nan, math.nan, math.nan) == "-"


def test_rows_stand_under_their_headings_in_order() -> None:
    columns = (Column("a", "a"),)
    table = ResultTable("t", columns, ({}, {}, {}), (("1",), ("2",), ("3",)), ("x", "x", "y"))

    assert by_group(table) == [("x", [("1",), ("2",)]), ("y", [("3",)])]
