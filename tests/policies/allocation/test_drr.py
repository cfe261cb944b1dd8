"""Deficit round robin with fixed weights."""

import pytest

from penstock.core.events import Completed, RefusalCause, Throttled, Woke
from penstock.core.model import TrafficClass
from penstock.core.settings import PolicySpec
from penstock.errors import ConfigError
from tests.core.story import arrive, is_at_rest, request, scheduler, sent, upstream
from tests.policies.allocation.contest import contest, letters

A, B = TrafficClass("a", 1.0), TrafficClass("b", 1.0)
HUNDRED = PolicySpec("drr", {"quantum_tokens": 100.0})


def test_equal_weights_share_tokens_not_turns() -> None:
    _, order = contest("drr", (A, B), *[("a", 100.0)] * 3, *[("b", 50.0)] * 6, quantum_tokens=100.0)

    assert letters(order) == "bbabbabba"  # a spent a token on holding the place: b starts


def test_a_weight_of_two_is_twice_the_tokens() -> None:
    double = TrafficClass("b", 2.0)
    _, order = contest(
        "drr", (A, double), *[("a", 100.0)] * 3, *[("b", 100.0)] * 6, quantum_tokens=100.0
    )

    assert letters(order)[:6].count("b") == 4


def test_a_request_dearer_than_many_quanta_goes_when_its_rounds_have_come() -> None:
    _, order = contest("drr", (A, B), ("a", 1000.0), *[("b", 100.0)] * 12, quantum_tokens=100.0)

    assert letters(order).index("a") in (9, 10)


def test_a_class_that_is_alone_is_never_held_back() -> None:
    _, order = contest("drr", (A, B), *[("b", 5000.0)] * 4, quantum_tokens=1.0)

    assert letters(order) == "bbbb"


def test_a_reply_longer_than_predicted_is_paid_for_later() -> None:
    penstock = scheduler(window=1, classes=(A, B), allocation=HUNDRED)
    order = [0]
    arrive(penstock, request(0, "a", cost=100))
    arrive(penstock, *(request(id_, "ab"[id_ % 2], cost=100) for id_ in range(1, 21)))
    for now in range(1, 11):  # every reply of a is three times as long as predicted
        id_ = order[-1]
        order += sent(penstock.handle(Completed(id_, 300 if id_ % 2 == 0 else 100), now=now))

    assert "".join("ab"[id_ % 2] for id_ in order[1:11]) == "bbabbbabbb"  # three for each long one


def test_a_refused_attempt_costs_its_class_nothing() -> None:
    penstock = scheduler(window=1, classes=(A, B), allocation=HUNDRED)
    arrive(penstock, request(0, "a", cost=100))
    before = penstock.snapshot().lanes[0].classes["a"].deficit_tokens
    penstock.handle(Throttled(0, RefusalCause.RATE, 1.0), now=1.0)
    penstock.handle(Woke(), now=2.0)

    assert penstock.snapshot().lanes[0].classes["a"].deficit_tokens == before


def test_at_rest_nobody_owes_and_nobody_is_owed() -> None:
    penstock, _ = contest("drr", (A, B), ("a", 70.0), ("b", 20.0), quantum_tokens=100.0)

    assert is_at_rest(penstock)


def test_a_head_that_fits_nowhere_does_not_cost_its_class_its_credit() -> None:
    penstock = scheduler(
        upstream(window=8, window_tokens=120.0), classes=(A, B), allocation=HUNDRED
    )
    arrive(penstock, request(0, "b", cost=60))
    arrive(penstock, request(1, "a", cost=100))  # does not fit beside 0
    credit = penstock.snapshot().lanes[0].classes["a"].deficit_tokens
    arrive(penstock, request(2, "b", cost=60))

    assert penstock.snapshot().in_flight == 2
    assert penstock.snapshot().lanes[0].classes["a"].deficit_tokens >= credit >= 100.0


def test_a_quantum_of_nothing_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"allocation 'drr': quantum_tokens=0: must be a finite number >= 0.001"
    ):
        scheduler(allocation=PolicySpec("drr", {"quantum_tokens": 0}))
