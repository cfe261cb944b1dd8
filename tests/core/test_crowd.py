"""Late among many and on time among few is a sign; late anywhere is chance."""

import random

from penstock.core.crowd_test import CrowdTest


def test_late_among_more_than_it_serves_is_no_chance() -> None:
    crowd = CrowdTest()
    for n in range(1, 9):
        crowd.saw(n, 1.0)
    crowd.saw(9, 1.3)

    assert crowd.shows(8)


def test_late_anywhere_is_chance() -> None:
    crowd, dice = CrowdTest(), random.Random(1)
    for _ in range(4):
        for n in range(1, 7):
            crowd.saw(n, 1.2 * dice.lognormvariate(0.0, 0.1))

    assert not crowd.shows(4)


def test_among_many_only_there_is_nothing_to_compare_with_and_late_is_late() -> None:
    crowd = CrowdTest()
    for _ in range(10):
        crowd.saw(16, 1.4)

    assert crowd.shows(8)


def test_where_nobody_flew_among_more_nothing_is_shown() -> None:
    crowd = CrowdTest()
    crowd.saw(3, 2.0)

    assert not crowd.shows(4)
    assert crowd.seen() == [(3, 2.0)]

    crowd.restart()
    assert crowd.seen() == []
