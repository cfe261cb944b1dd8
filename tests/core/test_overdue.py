"""What should be here and is not is taken for a sign of waiting, unless that was wrong before."""

import math

import pytest

from penstock.core.overdue import Overdue


def test_a_flight_is_overdue_after_half_as_long_again_as_expected() -> None:
    overdue = Overdue()
    overdue.sent(7, 2.0, now=10.0)

    assert overdue.next_at == pytest.approx(13.1)
    id_, sent_at, expected_s, waited_s = overdue.take()
    assert (id_, sent_at, expected_s) == (7, 10.0, 2.0)
    assert waited_s == pytest.approx(1.0)
    assert overdue.next_at == math.inf


def test_being_wrong_makes_patient_and_being_right_less_so_but_never_hasty() -> None:
    overdue = Overdue()

    def due_after_s() -> float:
        overdue.sent(1, 1.0, now=0.0)
        *_, waited_s = overdue.take()
        return 1.0 + waited_s

    overdue.ended(waited=False)
    assert due_after_s() == pytest.approx(2.25)
    overdue.ended(waited=True)
    assert due_after_s() == pytest.approx(1.8)
    for _ in range(20):
        overdue.ended(waited=True)
    assert due_after_s() == pytest.approx(1.5)
    for _ in range(20):
        overdue.ended(waited=False)
    assert due_after_s() == pytest.approx(16.0)
