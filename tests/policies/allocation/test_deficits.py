"""What each class may still spend, topped up in whole rounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.settings import PolicySpec
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket, ticket_of
from penstock.errors import ConfigError
from penstock.policies.allocation.adaptive_drr import CREDIT_QUANTA, DEBT_QUANTA, Deficits
from penstock.policies.registry import make
from tests.core.story import request


def head(cost: float) -> Ticket:
    return ticket_of(request(1, cost=cost), 1.0, 1.0)


def waiting(*names: str, idle: tuple[str, ...] = ()) -> Signals:
    signals = Signals()
    for name in (*names, *idle):
        signals.demand(name).waiting = int(name in names)
    return signals


def test_rounds_are_given_to_all_until_the_first_can_pay() -> None:
    deficits = Deficits(100.0)
    heads = {"a": head(250), "b": head(900)}

    deficits.top_up(heads, {"a": 1.0, "b": 2.0}, waiting("a", "b"))

    assert deficits.tokens == {"a": 300.0, "b": 600.0}  # three rounds: a pays, b does not yet
    assert deficits.affordable("a", heads["a"])
    assert not deficits.affordable("b", heads["b"])


def test_no_round_is_given_while_somebody_can_pay() -> None:
    deficits = Deficits(100.0)
    deficits.charge("a", -250.0)

    deficits.top_up({"a": head(250), "b": head(900)}, {"a": 1.0, "b": 1.0}, waiting("a", "b"))

    assert deficits.tokens == {"a": 250.0}


def test_a_debt_is_worked_off_before_anything_is_affordable() -> None:
    deficits = Deficits(100.0)
    deficits.charge("a", 350.0)

    deficits.top_up({"a": head(50)}, {"a": 1.0}, waiting("a"))

    assert deficits.tokens == {"a": 50.0}


def test_a_round_takes_the_credit_of_who_waits_for_nothing_but_no_debt() -> None:
    deficits = Deficits(100.0)
    for name, tokens in (("rich", -70.0), ("poor", 70.0), ("blocked", -30.0)):
        deficits.charge(name, tokens)
    signals = waiting("here", "blocked", idle=("rich", "poor"))

    deficits.top_up({"here": head(50)}, {"here": 1.0}, signals)

    assert deficits.tokens == {"rich": 0.0, "poor": -70.0, "blocked": 30.0, "here": 100.0}


def test_rounding_cannot_leave_everybody_unable_to_pay() -> None:
    deficits = Deficits(256.0)
    deficits.charge("a", 3494.0)  # 45 rounds of 179.2 add up to 4569.999999999999 - by a hair
    heads = {"a": head(4570)}

    deficits.top_up(heads, {"a": 0.7}, waiting("a"))

    assert deficits.affordable("a", heads["a"])


@given(
    quantum=st.floats(0.1, 10_000),
    classes=st.lists(
        st.tuples(st.floats(1, 100_000), st.floats(-50_000, 50_000), st.floats(0.01, 100)),
        min_size=1,
        max_size=4,
    ),
)
def test_after_a_top_up_somebody_can_always_pay(
    quantum: float, classes: list[tuple[float, float, float]]
) -> None:
    deficits = Deficits(quantum)
    heads = {str(i): head(cost) for i, (cost, _, _) in enumerate(classes)}
    weights = {str(i): weight for i, (_, _, weight) in enumerate(classes)}
    for i, (_, debt, _) in enumerate(classes):
        deficits.charge(str(i), debt)

    deficits.top_up(heads, weights, waiting(*heads))

    assert any(deficits.affordable(name, one) for name, one in heads.items())


@pytest.mark.parametrize("quantum", [0.0, -1.0, float("nan")])
def test_a_quantum_that_gives_no_turn_is_refused(quantum: float) -> None:
    with pytest.raises(ConfigError, match="or no class gets a turn"):
        make("allocation", PolicySpec("drr", {"quantum_tokens": quantum}), ())


def test_a_refused_giant_leaves_its_class_no_credit_that_keeps_others_from_their_turn() -> None:
    deficits = Deficits(256.0)
    deficits.tokens["batch"] = 490_000.0
    deficits.charge("batch", 490_000.0)
    deficits.charge("batch", -490_000.0)

    assert deficits.tokens["batch"] == CREDIT_QUANTA * 256.0


def test_an_ordinary_refund_gives_back_what_was_charged() -> None:
    deficits = Deficits(256.0)
    deficits.charge("batch", 2000.0)
    deficits.charge("batch", -2000.0)

    assert deficits.tokens["batch"] == 0.0


def test_no_usage_makes_a_debt_without_a_floor() -> None:
    deficits = Deficits(256.0)
    deficits.charge("batch", 1e8)
    deficits.charge("batch", 1e8)

    assert deficits.tokens["batch"] == -DEBT_QUANTA * 256.0
